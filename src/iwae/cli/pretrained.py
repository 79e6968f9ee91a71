"""`iwae pretrained`: the trained models of the project's repository."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from iwae.cli import tables
from iwae.cli.console import print_records
from iwae.data import shown_name
from iwae.paper.pretrained import pretrained
from iwae.paper.reproduction import PAPER_SAMPLES

HEADING = ("model", "data", "schedule", "paper", "L_5000", "AIS", "active", "paper's", "hours")


@dataclass(frozen=True)
class Pretrained:
    """List the trained models of the project's repository, beside the paper's figures: test NLL in nats.

    Every one is a run: `iwae.load`, `iwae evaluate`, `analyze` and `explore` take it as it is.
    """

    path: Positional[Path | None] = None
    """Directory of the models (default: pretrained/ of the checkout, or of the working directory)."""
    format: tables.Format = "table"
    """How to print them: json and csv have every figure, the training command among them."""

    def run(self, arguments: list[str]) -> int:
        """Prints the list."""
        print_records(pretrained(self.path), HEADING, _cells, self.format)
        return 0


def _cells(record: dict[str, Any]) -> list[str]:
    def figure(prefix: str, stderr: str, usual: bool, method: str) -> str:
        value, examples = record[f"{prefix}nll"], record[f"{prefix}num_examples"]
        if value is None:
            return "not measured"
        details = [] if usual else [method]
        details += [] if examples == record["split_examples"] else [f"{examples:,} examples"]
        return tables.figure_label(value, record[stderr]) + (f" ({', '.join(details)})" if details else "")

    seconds, samples = record["training_seconds"], record["num_samples"]
    return [
        record["name"],
        shown_name(record["dataset"], record["data_mark"]),
        f"{record['schedule']}, {record['epochs']:,} epochs",
        "" if record["paper_nll"] is None else f"{record['paper_nll']:.2f}",
        figure("", "nll_stderr", samples == PAPER_SAMPLES, f"L_{samples}"),
        figure("ais_", "ais_stderr", True, ""),
        record["active_units_by_layer"] or "",
        record["paper_active"] or "",
        "" if seconds is None else f"{seconds / 3600:.1f}",
    ]
