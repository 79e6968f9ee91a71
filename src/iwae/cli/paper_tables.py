"""The paper's tables on a terminal of 80 columns, and the progress of what trains them."""

from collections.abc import Sequence
from itertools import groupby

from rich.table import Table

from iwae.paper import CellStatus
from iwae.paper.runner import CellProgress
from iwae.paper.status import UNREADABLE, figure, gap_text, model_text, paper_text

MARK = "*"
# Name and width: the same in all tables, so that they stand under each other.
COLUMNS = (("model", 8), ("k", 2), ("paper", 13), ("ours", 15), ("active", 6), ("gap", 13), ("stages", 7))


def terminal_tables(statuses: Sequence[CellStatus]) -> list[Table]:
    """One table for each kind of data and number of layers, in the order of the cells."""
    groups = groupby(statuses, lambda status: (status.data, status.cell.config.layers))
    return [_table(data, layers or 1, list(part)) for (data, layers), part in groups]


def _table(data: str, layers: int, statuses: Sequence[CellStatus]) -> Table:
    title = f"{data}, {layers} layer{'s' if layers > 1 else ''}"
    gap = statuses[0].published_gap
    if gap is not None:
        title += f" (the paper's gap, test - training: up to {gap:g})"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name, width in COLUMNS:
        table.add_column(name, min_width=width, no_wrap=True)
    for status in statuses:
        table.add_row(*_row(status))
    return table


def _row(status: CellStatus) -> tuple[str, ...]:
    ours = ""
    if status.problem is not None:
        ours = UNREADABLE
    elif status.measured_stages is not None:
        ours = figure(status.nll, status.stderr) if status.nll is not None else "not finite"
        ours += "" if status.is_reproduction else MARK
    # Which stage the figure is of, where the run is further.
    measured = f" ({status.measured_stages})" if status.measured_early else ""
    return (
        model_text(status),
        str(status.cell.config.k),
        paper_text(status),
        ours,
        status.active,
        gap_text(status, MARK),
        f"{status.stages_done}/{status.stages_total}{measured}",
    )


def progress_table(progress: Sequence[CellProgress]) -> Table:
    """The runs that are not waiting, and how far they are."""
    done = sum(cell.state == "done" for cell in progress)
    table = Table(title=f"{done} of {len(progress)} runs finished", title_justify="left", box=None, pad_edge=False)
    for heading in ("run", "state", "epochs"):
        table.add_column(heading)
    for cell in progress:
        if cell.state != "waiting":
            table.add_row(cell.config.name(), cell.state, f"{cell.epochs}/{cell.total}")
    return table
