"""What a program in an SDK's environment saw, printed as one line of JSON for the test that ran it."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError


class Seen:
    """Values by name, and whatever was warned of or logged as a warning or worse."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.complaints: list[str] = []
        self._handler = _Collect(self.complaints)
        logging.getLogger().addHandler(self._handler)
        # The SDK's own loggers do not propagate.
        logging.getLogger("sagemaker").addHandler(self._handler)
        warnings.showwarning = self._warn

    def _warn(self, message: Warning | str, category: type[Warning], *_: Any) -> None:
        self.complaints.append(f"{category.__name__}: {message}")

    def __setitem__(self, name: str, value: Any) -> None:
        self.values[name] = value

    def error(self, name: str, call: Callable[[], Any]) -> None:
        """Note the error that the call raises, as its user would read it."""
        try:
            self[name] = {"result": call()}
        except ClientError as error:
            more = {k: v for k, v in error.response.items() if k.startswith(("Original", "LogStream"))}
            self[name] = {
                "type": type(error).__name__,
                "code": error.response["Error"]["Code"],
                "message": error.response["Error"]["Message"],
                **more,
            }
        except Exception as error:  # noqa: BLE001  (whatever the SDK makes of it)
            self[name] = {"type": type(error).__name__, "message": str(error)}

    def show(self) -> None:
        print("\n" + json.dumps({**self.values, "complaints": self.complaints}, default=str))


class _Collect(logging.Handler):
    def __init__(self, complaints: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._complaints = complaints

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{record.levelname}: {record.getMessage()}"
        if line not in self._complaints[-1:]:
            self._complaints.append(line)
