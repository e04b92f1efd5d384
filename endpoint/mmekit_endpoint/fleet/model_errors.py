"""ModelErrors as SageMaker words them, with the place of the container's log."""

from __future__ import annotations

from pathlib import Path

from mmekit_endpoint.database import ACCOUNT
from mmekit_endpoint.errors import ModelError

#: Characters of a container's answer that are repeated in the message, and in OriginalMessage.
_QUOTED = 1000
_ORIGINAL = 10_000


class ModelErrors:
    """Makes the errors of one instance's container."""

    def __init__(self, endpoint_name: str, region: str, stream: str, log: Path) -> None:
        self._group = f"/aws/sagemaker/Endpoints/{endpoint_name}"
        self._stream = stream
        self._arn = f"arn:aws:logs:{region}:{ACCOUNT}:log-group:{self._group}"
        self._log = log

    def of(self, status: int, text: str) -> ModelError:
        """Return the error for a container's answer; status 0: there was none, ``text`` says why."""
        side = "client" if 400 <= status < 500 else "server"
        message = (
            f'Received {side} error ({status}) from primary with message "{text[:_QUOTED]}". See stream '
            f"{self._stream} of log group {self._group}, or {self._log}, for more information."
        )
        return ModelError(message, status, text[:_ORIGINAL], self._arn)

    def timed_out(self, detail: str) -> ModelError:
        """Return the error for a call whose time was over while the container had it."""
        return self.of(
            0, f"Your invocation timed out while waiting for a response from container primary: {detail}."
        )
