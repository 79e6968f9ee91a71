"""How far each cell of the paper's tables has been repeated, as rows for a terminal, Markdown or JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iwae.errors import IWAEError
from iwae.paper.cells import OVERFITTING, Cell
from iwae.runs.directory import RunDirectory

HEADINGS = ("data", "model", "k", "layers", "paper", "ours", "active", "seed", "stages")
NOT_A_REPRODUCTION = "partial"


@dataclass(frozen=True)
class CellStatus:
    """A cell and what its run has come to.

    `stages_done` of `stages_total` are complete; `complete` means all of them. `nll`, `stderr` (nats) and
    `active` belong to the checkpoint after `measured_stages`; `gap` is test minus training NLL with its standard
    error, where the run was analyzed. `mark` is the data's: verified, unverified or own.
    """

    cell: Cell
    stages_done: int
    stages_total: int
    mark: str | None = None
    measured_stages: int | None = None
    nll: float | None = None
    stderr: float | None = None
    active: tuple[int, ...] | None = None
    gap: tuple[float, float] | None = None

    @property
    def complete(self) -> bool:
        """Whether every stage of the paper's schedule was trained and measured: a reproduction."""
        return self.measured_stages == self.stages_total

    @property
    def is_reproduction(self) -> bool:
        """Complete, and on the published data: only then may the figure stand beside the paper's."""
        return self.complete and self.mark == "verified"


def status_of(cell: Cell, results_dir: Path) -> CellStatus:
    """Reads a cell's run, if there is one. Raises IWAEError for a run of another configuration in its place."""
    run = RunDirectory(cell.directory(results_dir))
    total = len(cell.config.full_schedule())
    if not run.exists:
        return CellStatus(cell, 0, total)
    differences = cell.config.differences(run.config())
    if differences:
        raise IWAEError(f"{run.path} is not the paper's run: {'; '.join(differences)}; move it elsewhere")
    stages = run.stage_checkpoints()
    begun = CellStatus(cell, stages[-1] if stages else 0, total, run.read_record()["data"].get("mark"))
    results = run.results()
    if results is None:
        return begun
    return replace(
        begun,
        measured_stages=results["stages_done"],
        nll=results["test"].get("nll"),
        stderr=results["test"].get("stderr"),
        active=tuple(results.get("active_units", ())),
        gap=_gap(run, results),
    )


def _gap(run: RunDirectory, results: dict[str, Any]) -> tuple[float, float] | None:
    path = run.path / "analysis" / "analysis.json"
    if not path.is_file():
        return None
    try:
        analysis = json.loads(path.read_text())
        if analysis["weights_sha256"] != results["weights_sha256"]:
            return None
        return float(analysis["gap"]["value"]), float(analysis["gap"]["stderr"])
    except (ValueError, KeyError, TypeError):
        return None


def row(status: CellStatus) -> tuple[str, ...]:
    """One line of text cells under `HEADINGS`."""
    config, published = status.cell.config, status.cell.published
    paper = f"{published.nll:.2f}" + (f" ({published.active})" if published.active else "")
    ours = ""
    if status.nll is not None:
        error = f" ± {status.stderr:.2f}" if status.stderr is not None else ""
        note = "" if status.complete else f" {NOT_A_REPRODUCTION}"
        ours = f"{status.nll:.2f}{error}{note}"
    active = "+".join(map(str, status.active)) if status.active else ""
    data = config.dataset if status.mark in (None, "verified") else f"{config.dataset} ({status.mark})"
    model = str(config.model) if status.cell.source is None else f"{status.cell.source.model}→{config.model}"
    stages = f"{status.stages_done}/{status.stages_total}"
    return data, model, str(config.k), str(config.layers), paper, ours, active, str(config.seed), stages


def to_markdown(statuses: Sequence[CellStatus]) -> str:
    """A Markdown table, partial runs marked."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    lines += ["| " + " | ".join(row(status)) + " |" for status in statuses]
    return "\n".join(lines)


def to_json(statuses: Sequence[CellStatus]) -> list[dict[str, Any]]:
    """One object a cell, every figure as a number."""
    return [
        {
            "table": status.cell.table,
            "config": status.cell.config.to_json(),
            "published": {"nll": status.cell.published.nll, "active": status.cell.published.active},
            "stages_done": status.stages_done,
            "stages_total": status.stages_total,
            "complete": status.complete,
            "is_reproduction": status.is_reproduction,
            "data_mark": status.mark,
            "measured_stages": status.measured_stages,
            "nll": status.nll,
            "stderr": status.stderr,
            "active_units": list(status.active) if status.active is not None else None,
            "gap": {"value": status.gap[0], "stderr": status.gap[1]} if status.gap else None,
            "published_gap": OVERFITTING.get(status.cell.config.dataset),
        }
        for status in statuses
    ]
