"""The library's one public error."""


class IWAEError(Exception):
    """Something the user can mend: the message is one line that says what was given, what was expected
    and what to do.

    The command line prints it after `iwae: error:` and exits with status 1; library users catch it.
    """


class RunBusyError(IWAEError):
    """Another process is training or measuring in the same run directory."""
