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

HEADING = ("model", "data", "schedule", "paper", "L_5000", "AIS above it", "active", "paper's", "hours")


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
    likelihood = above = "not measured"
    if record["nll"] is not None:
        details = [] if record["num_samples"] == PAPER_SAMPLES else [f"L_{record['num_samples']}"]
        part = record["num_examples"] != record["split_examples"]
        details += [f"{record['num_examples']:,} examples"] if part else []
        likelihood = tables.figure_label(record["nll"], record["nll_stderr"]) + _in_brackets(details)
    if record["ais_above"] is not None:
        above = tables.figure_label(record["ais_above"], record["ais_above_stderr"])
        above += _in_brackets([f"{record['ais_num_examples']:,} examples"])
    seconds = record["training_seconds"]
    return [
        record["name"],
        shown_name(record["dataset"], record["data_mark"]),
        f"{record['schedule']}, {record['epochs']:,} epochs",
        "" if record["paper_nll"] is None else f"{record['paper_nll']:.2f}",
        likelihood,
        above,
        record["active_units_by_layer"] or "",
        record["paper_active"] or "",
        "" if seconds is None else f"{seconds / 3600:.1f}",
    ]


def _in_brackets(details: list[str]) -> str:
    return f" ({', '.join(details)})" if details else ""
