"""Every command of `iwae`, by name."""

from iwae.cli.commands import Data, Evaluate, Sample, Show, Train
from iwae.cli.diagnose import Diagnose
from iwae.cli.explore import Explore
from iwae.cli.paper import Paper
from iwae.cli.prune import Prune
from iwae.cli.report import Analyze, Report

COMMANDS = {
    "data": Data,
    "train": Train,
    "evaluate": Evaluate,
    "sample": Sample,
    "show": Show,
    "prune": Prune,
    "analyze": Analyze,
    "report": Report,
    "diagnose": Diagnose,
    "explore": Explore,
    "paper": Paper,
}
