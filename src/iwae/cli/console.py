"""What the commands print while they work: live progress on a terminal, plain lines elsewhere."""

import contextlib
import csv
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.filesize import decimal
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from iwae.cli import tables
from iwae.io.text import counted, printable
from iwae.runs.reporter import Reporter
from iwae.training.schedule import Schedule, stage_end

if TYPE_CHECKING:
    from iwae.training.loop import Progress as TrainingProgress

PLAIN_INTERVAL = 15.0
# The work at hand, and what was done last.
MAX_BARS = 4


def print_lines(*lines: str) -> None:
    """Lines on standard output: a path is not broken, coloured or read as markup, and controls no terminal."""
    for line in lines:
        print_line(Console(), line)


def print_line(console: Console, line: str) -> None:
    """One line, as `print_lines` prints it, on any console."""
    console.print(printable(line), soft_wrap=True, highlight=False, markup=False)


def print_records(
    records: Sequence[dict[str, Any]],
    heading: Sequence[str],
    cells: Callable[[dict[str, Any]], list[str]],
    style: tables.Format,
) -> None:
    """Records of one kind: all their fields as JSON or CSV, or as a table of `cells`."""
    if style == "json":
        print(json.dumps(records, indent=2))
    elif style == "csv":
        writer = csv.DictWriter(sys.stdout, records[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    else:
        rows = [[printable(cell) for cell in cells(record)] for record in records]
        if style == "markdown":
            table = [[cell.replace("|", "\\|") for cell in row] for row in (heading, ["---"] * len(heading), *rows)]
            print_lines(*(f"| {' | '.join(row)} |" for row in table))
            return
        console = Console()
        # A pipe has no width.
        print_lines(*tables.aligned(heading, rows, console.width if console.is_terminal else None))


def training_line(progress: "TrainingProgress", schedule: Schedule) -> str:
    """Stage, epoch, learning rate, bound and speed on one line of fewer than 80 columns."""
    rate = progress.steps_per_second
    speed = f"{rate:.{0 if rate >= 10 else 1}f} steps/s" if rate > 0 else "compiling"
    return (
        f"stage {progress.stage + 1}/{len(schedule)}  epoch {progress.epoch + 1}/{stage_end(schedule, len(schedule))}"
        f"  rate {progress.learning_rate:.2e}  bound {progress.bound:.2f}  {speed}"
    )


def device_label() -> str:
    """`CPU`, or `GPU (NVIDIA H100 80GB HBM3)`: what JAX computes on."""
    import jax

    device = jax.devices()[0]
    kind = "" if device.device_kind.lower() == device.platform else f" ({device.device_kind})"
    return f"{device.platform.upper()}{kind}"


def make_reporter(console: Console | None = None) -> "ConsoleReporter":
    """A reporter on standard error, unless told otherwise. Its display ends with the `with` block."""
    return ConsoleReporter(console or Console(stderr=True))


@contextlib.contextmanager
def told_when_stopped(reporter: Reporter) -> Iterator[None]:
    """Says, where the work inside is stopped by a signal, that the same command goes on with what it keeps."""
    try:
        yield
    except KeyboardInterrupt:
        reporter.message("What was measured up to here is kept as far as it was whole: the same command goes on.")
        raise


class ConsoleReporter(Reporter):
    """On a terminal a bar for the work at hand and, while training, a line of figures below it. Elsewhere log lines:
    at most one in fifteen seconds, and one at every end of a stage and of a piece of work.
    """

    def __init__(self, console: Console):
        self._console = console
        self._schedule: Schedule = ()
        self._total_steps = 0
        self._last = time.monotonic()
        self._task: tuple[str, TaskID] | None = None
        self._figures = Text()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[detail]}"),
            console=console,
        )
        self._live = Live(Group(self._bars, self._figures), console=console, refresh_per_second=4)

    def __enter__(self) -> "ConsoleReporter":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def message(self, text: str) -> None:
        print_line(self._console, text)

    def obtaining(self, what: str, done: int, total: int | None) -> None:
        self._show(f"obtaining {what}", done, total, decimal(done))

    def training_starts(self, schedule: Schedule, steps_per_epoch: int, step: int) -> None:
        epochs = stage_end(schedule, len(schedule))
        self._schedule, self._total_steps = schedule, epochs * steps_per_epoch
        if step < self._total_steps:
            what = f"{counted(epochs, 'epoch')} of {counted(steps_per_epoch, 'step')}"
            self.message(f"Training {what} on {device_label()}, from step {step}.")
            if self._live.is_started:
                self._show("training", step, self._total_steps, "compiling")

    def training(self, progress: "TrainingProgress") -> None:
        line = training_line(progress, self._schedule)
        self._figures.plain = line
        self._show("training", progress.step, self._total_steps, "", line=line, finished=progress.stage_done)

    def measuring(self, what: str, done: int, total: int) -> None:
        self._show(f"measuring {what}", done, total, f"{done}/{total}")

    def _show(
        self, what: str, done: int, total: int | None, detail: str, *, line: str = "", finished: bool = False
    ) -> None:
        """The bar of `what`; or a log line, `line` or what the bar says, where it is due."""
        if self._live.is_started:
            if self._task is None or self._task[0] != what:
                self._task = (what, self._bars.add_task(what, total=total, completed=done, detail=detail))
                for old in self._bars.task_ids[:-MAX_BARS]:
                    self._bars.remove_task(old)
            self._bars.update(self._task[1], total=total, completed=done, detail=detail)
        elif finished or done == total or time.monotonic() - self._last >= PLAIN_INTERVAL:
            self._last = time.monotonic()
            self.message(line or f"{what}: {detail}")
