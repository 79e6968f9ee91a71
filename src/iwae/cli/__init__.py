"""The command line: `iwae data | train | evaluate | sample | show`, and the paper's own commands."""

from iwae.cli.app import main
from iwae.cli.paper import paper_download, paper_experiment

__all__ = ["main", "paper_download", "paper_experiment"]
