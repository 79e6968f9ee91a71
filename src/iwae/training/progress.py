"""One line that says how far training is, in a terminal or a notebook."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


class ProgressLine:
    """Shows nothing: what scripts and pipes get."""

    def __init__(self, epochs: int):
        self.epochs = epochs

    def update(self, epoch: int, bound: float, steps_per_second: float) -> None:
        """So many epochs are done; `bound` is the present epoch's mean, in nats per example."""

    def close(self) -> None:
        """Ends the line."""

    def text(self, epoch: int, bound: float, steps_per_second: float) -> str:
        """`epoch 3/20, bound -98.21 nats, 812 steps/s`."""
        speed = f", {steps_per_second:,.0f} steps/s" if steps_per_second == steps_per_second else ""
        return f"epoch {epoch}/{self.epochs}, bound {bound:.2f} nats{speed}"


class TerminalLine(ProgressLine):
    """Rewrites one line of standard error."""

    _width = 0

    def update(self, epoch: int, bound: float, steps_per_second: float) -> None:
        text = self.text(epoch, bound, steps_per_second)
        self._width = max(self._width, len(text))
        sys.stderr.write(f"\r{text:<{self._width}}")
        sys.stderr.flush()

    def close(self) -> None:
        if self._width:
            sys.stderr.write("\n")


class NotebookLine(ProgressLine):
    """Replaces one output of a notebook's cell."""

    _handle: Any = None

    def update(self, epoch: int, bound: float, steps_per_second: float) -> None:
        from IPython.display import Pretty, display  # pyright: ignore[reportMissingImports]

        class Plain(str):
            def __repr__(self) -> str:
                return str(self)

        text = Pretty(Plain(self.text(epoch, bound, steps_per_second)))
        if self._handle is None:
            self._handle = display(text, display_id=True)
        else:
            self._handle.update(text)


@contextlib.contextmanager
def progress_line(epochs: int, wanted: bool | None) -> Iterator[ProgressLine]:
    """The line for where this program runs; None: in terminals and notebooks, nowhere else."""
    line = ProgressLine(epochs)
    if wanted is not False:
        if _in_notebook():
            line = NotebookLine(epochs)
        elif wanted or sys.stderr.isatty():
            line = TerminalLine(epochs)
    try:
        yield line
    finally:
        line.close()


def _in_notebook() -> bool:
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"
