"""What is left to do of the paper's tables: which cells to train or measure, which to leave, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iwae.paper.cells import Cell
from iwae.paper.reproduction import PAPER_STAGES
from iwae.paper.status import CellStatus, source_stages, status_of
from iwae.runs.directory import Run
from iwae.runs.options import MeasureOptions


@dataclass(frozen=True)
class Plan:
    """`work` is to be trained or measured, in this order, and `finished` needs nothing.

    `left_out` says of every other cell in one line why it is not begun, where what was asked for makes it so;
    `blocked` does where it can't be begun.
    """

    work: tuple[Cell, ...]
    finished: tuple[Cell, ...]
    left_out: tuple[str, ...]
    blocked: tuple[str, ...]


def make_plan(cells: Sequence[Cell], results_dir: Path, stages: int | None, measure: MeasureOptions) -> Plan:
    """Sorts cells by what their runs in `results_dir` have come to.

    A run is finished when it was trained through `stages` (default: all), and measured and analyzed with at least
    the samples and examples of `measure`. A cell that starts from another run is only begun once that run is
    through all of its stages, or is going to be: its source is then among `work`, before it.
    """
    plan: dict[str, list] = {"work": [], "finished": [], "left_out": [], "blocked": []}
    for cell in sorted(cells, key=lambda cell: cell.source is not None):
        status = status_of(cell, results_dir)
        if status.problem is not None:
            plan["blocked"].append(status.problem)
        elif status.pruned:
            path = cell.directory(results_dir)
            plan["blocked"].append(f"{path} holds a pruned model, which can't be trained: move it elsewhere")
        elif _is_finished(status, stages, measure):
            plan["finished"].append(cell)
        elif cell.source is not None and (why := _why_not_yet(cell, status, results_dir, stages, plan["work"])):
            plan["blocked" if stages is None else "left_out"].append(why)
        else:
            plan["work"].append(cell)
    return Plan(*(tuple(plan[name]) for name in ("work", "finished", "left_out", "blocked")))


def _is_finished(status: CellStatus, stages: int | None, measure: MeasureOptions) -> bool:
    config = status.cell.config
    wanted = len(config.full_schedule(None if config.init_from else stages))
    return (status.measured_stages or 0) >= wanted and status.measured_as(measure)


def _why_not_yet(
    cell: Cell, status: CellStatus, results_dir: Path, stages: int | None, work: Sequence[Cell]
) -> str | None:
    """Why a cell that starts from another run is not begun or continued now; None: it is."""
    assert cell.source is not None
    name, source = cell.config.name(), cell.source.name()
    if status.begun:
        record = Run.open(cell.directory(results_dir)).record
        start = record["init_from"]["stages_done"] if "init_from" in record else 0
        if start >= len(cell.source.full_schedule()):
            return None
        return (
            f"{name} was begun from {source} after only {start} of its {PAPER_STAGES} stages: move it elsewhere, and"
            " it is begun anew"
        )
    done, needed = source_stages(cell, results_dir)
    if done >= needed:
        return None
    if stages is None or stages >= needed:
        if any(other.config == cell.source for other in work):
            return None
        config = cell.source
        return (
            f"{name} waits for all {needed} stages of {source}, which has {done}; for these: iwae paper run --table 1"
            f" --datasets {config.dataset} --models {config.model} --k {config.k} --layers {config.layers}"
        )
    return f"{name} is left out: it starts from all {needed} stages of {source}, and `stages` is {stages}"
