"""The command line: `iwae data | train | evaluate | sample | show`."""

from iwae.cli.app import main

__all__ = ["main"]
