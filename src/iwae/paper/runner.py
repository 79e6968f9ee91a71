"""What trains the cells of the paper's tables that are missing: an order for each process."""

from collections.abc import Sequence
from pathlib import Path

from iwae.paper.cells import Cell
from iwae.paper.plan import Plan
from iwae.runs.options import MeasureOptions
from iwae.runs.orders import Order


def orders_of(
    plan: Plan,
    results_dir: Path,
    *,
    stages: int | None = None,
    measure: MeasureOptions | None = None,
    jobs: int = 1,
    datasets_dir: Path | None = None,
) -> list[Order]:
    """The work of a plan as orders, for `jobs` processes at once.

    Cells that share data, network and number of samples are trained by one process in one compiled program, unless
    other processes would have nothing to do. A cell that starts from another run waits for its last stage.
    """
    return [
        Order(
            runs={cell.directory(results_dir): cell.config for cell in cells},
            then="analyze",
            command="the same iwae paper run",
            measure=measure or MeasureOptions(),
            stages=None if cells[0].config.init_from else stages,
            source_stages=len(cells[0].source.full_schedule()) if cells[0].source else None,
            datasets_dir=datasets_dir,
        )
        for cells in together(plan.work, jobs)
    ]


def together(cells: Sequence[Cell], jobs: int) -> list[list[Cell]]:
    """The cells as groups for a process each: those that differ in objective and seed alone in one group, but in at
    least `jobs` groups if there are as many cells.
    """
    groups: list[list[Cell]] = []
    for cell in cells:
        for group in groups:
            if cell.source is group[0].source is None and not cell.config.kept_apart(group[0].config):
                group.append(cell)
                break
        else:
            groups.append([cell])
    while len(groups) < jobs and (largest := max(groups, key=len, default=[])) and len(largest) > 1:
        groups.insert(groups.index(largest) + 1, [largest.pop()])
    return groups
