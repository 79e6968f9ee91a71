"""Every command of `iwae`, one line each. A command's module is imported only when the command runs."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from iwae.errors import IWAEError

EXTRAS = {"report": ("matplotlib", "jinja2")}
"""The packages that each of this package's extras brings."""


class Command(NamedTuple):
    """Where a command is, what it does on one line, and the extra that it needs."""

    home: str
    summary: str
    extra: str | None = None

    def load(self) -> Any:
        """The command: a frozen dataclass whose fields are its options, with a method `run`."""
        module, name = self.home.split(":")
        return getattr(import_module(module), name)


COMMANDS = {
    "data": Command("iwae.cli.data:Data", "List the datasets, or obtain and verify some."),
    "train": Command("iwae.cli.train:Train", "Train a run, or continue it where it stopped, and measure it."),
    "evaluate": Command("iwae.cli.evaluate:Evaluate", "Measure a run's likelihood on a split."),
    "impute": Command("iwae.cli.impute:Impute", "Fill in what is missing in a file of rows."),
    "outliers": Command("iwae.cli.outliers:Outliers", "Rank a table's rows by their density, the least likely first."),
    "sample": Command("iwae.cli.sample:Sample", "Draw samples from a run's model."),
    "sweep": Command("iwae.cli.sweep:SweepCommand", "Train runs over a grid of options, here or on a cluster."),
    "show": Command("iwae.cli.show:Show", "Print runs as a table, or as JSON, CSV or Markdown."),
    "compare": Command("iwae.cli.compare:Compare", "Compare runs, test example by test example."),
    "estimators": Command("iwae.cli.estimators:Estimators", "Train with several estimators, and compare.", "report"),
    "prune": Command("iwae.cli.prune:Prune", "Write a smaller model without a run's inactive units."),
    "analyze": Command("iwae.cli.analyze:Analyze", "Measure and draw what a run has learned.", "report"),
    "report": Command("iwae.cli.report:Report", "Write one self-contained HTML page about runs.", "report"),
    "diagnose": Command("iwae.cli.diagnose:Diagnose", "Measure gradient estimators on a trained run.", "report"),
    "certify": Command("iwae.cli.certify:Certify", "Enclose log p(x) on data simulated from a run's model."),
    "explore": Command("iwae.cli.explore:Explore", "Write a page to explore a run's model with."),
    "export": Command("iwae.cli.export:Export", "Write a run's weights alone, or its networks for use without iwae."),
    "doctor": Command("iwae.cli.doctor:Doctor", "Print what a bug report needs: versions, devices, data, files."),
    "pretrained": Command("iwae.cli.pretrained:Pretrained", "List the trained models of the project's repository."),
    "paper": Command("iwae.cli.paper:Paper", "List the paper's results beside ours, or train what is missing."),
}


def check_installed(what: str, extra: str) -> None:
    """Raises IWAEError where a package of `extra`, which `what` needs, is missing."""
    missing = [name for name in EXTRAS[extra] if find_spec(name) is None]
    if missing:
        raise IWAEError(f'{what} needs {" and ".join(missing)}: pip install "iwae[{extra}]"')
