"""How a run tells what it does, without knowing a terminal."""

from typing import TYPE_CHECKING

from iwae.training.schedule import Schedule

if TYPE_CHECKING:
    from iwae.training.loop import Progress


class Reporter:
    """Receives what happens in a run. This one keeps silent: the library's default; the command line has others."""

    def message(self, text: str) -> None:
        """One line for the user."""

    def obtaining(self, what: str, done: int, total: int | None) -> None:
        """Bytes of a download so far."""

    def training_starts(self, schedule: Schedule, steps_per_epoch: int, step: int) -> None:
        """Training begins, or goes on, after `step` steps."""

    def training(self, progress: "Progress") -> None:
        """A chunk of steps is done."""

    def measuring(self, what: str, done: int, total: int) -> None:
        """Examples, or estimators, measured so far."""
