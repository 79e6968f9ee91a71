"""Every command of `iwae`, by name."""

from iwae.cli.commands import Data, Evaluate, Sample, Show, Train
from iwae.cli.diagnose_command import Diagnose
from iwae.cli.explore_command import Explore
from iwae.cli.paper_command import Paper
from iwae.cli.prune_command import Prune
from iwae.cli.report_commands import Analyze, Report

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
