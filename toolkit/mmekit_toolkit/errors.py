"""What the commands of the toolkit end with: one tree of errors, each with its exit code.

The codes are documented in docs/deploy.md; scripts branch on them. Code 2 is click's: an option or argument
that cannot be used.
"""

from __future__ import annotations

from mmekit.errors import MmekitError

#: A step could not be done: a service, a registry or the engine refused, or did not answer.
EXIT_FAILED = 1
#: A check was made and something is wrong with what was checked: a broken clause, an archive with faults.
EXIT_FAULTS = 3
#: SageMaker made the endpoint Failed, or rolled an update back.
EXIT_ROLLED_BACK = 4
#: No credentials, expired ones, or ones that may not do this.
EXIT_CREDENTIALS = 5
#: No container engine answers.
EXIT_NO_ENGINE = 6
#: The endpoint, model or image that was named is not there.
EXIT_NOT_FOUND = 7
#: A fault of ours (sysexits.h: EX_SOFTWARE); --debug shows the traceback.
EXIT_BUG = 70
#: The file that describes the endpoint cannot be used (sysexits.h: EX_CONFIG), as of `mmekit serve`.
EXIT_CONFIG = 78
#: Interrupted by Ctrl-C (128 + SIGINT, as shells have it), or by SIGTERM or SIGHUP, taken for the same.
EXIT_INTERRUPTED = 130


class ToolkitError(MmekitError):
    """Raised when a command cannot go on; the message says what was expected, what came and what to do."""

    exit_code = EXIT_FAILED


class FaultsFound(ToolkitError):
    """Raised when a check has found faults that were printed already; the message counts them."""

    exit_code = EXIT_FAULTS


class RolledBack(ToolkitError):
    """Raised when SageMaker did not do what was asked: a Failed endpoint, an update that was rolled back."""

    exit_code = EXIT_ROLLED_BACK


class CredentialsError(ToolkitError):
    """Raised when AWS does not know the caller, or does not allow the call."""

    exit_code = EXIT_CREDENTIALS


class NoEngine(ToolkitError):
    """Raised when no container engine answers."""

    exit_code = EXIT_NO_ENGINE


class NotFound(ToolkitError):
    """Raised when what was named is not there."""

    exit_code = EXIT_NOT_FOUND


class BadDescription(ToolkitError):
    """Raised when the file that describes an endpoint cannot be used; the message has ``file:line``."""

    exit_code = EXIT_CONFIG
