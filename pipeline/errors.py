"""The two kinds of error that the command line reports, and the exit code of each."""


class PipelineError(Exception):
    """The work failed. The message says what was found, what was expected and what to do."""

    exit_code = 1


class UsageError(PipelineError):
    """The command, the configuration or a file that the user wrote is wrong."""

    exit_code = 2
