"""An image's name in a registry: what is there, and pushing to it. The engine does both: its network,
certificates and proxies are those that count.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from mmekit_toolkit.aws.ecr import Login
from mmekit_toolkit.errors import ToolkitError
from mmekit_toolkit.images import push_errors
from mmekit_toolkit.images.name import ImageName
from mmekit_toolkit.images.push_errors import Cause

#: Attempts of one question or push, the first included; the engine itself tries each layer five times
#: (moby: distribution/xfer/upload.go).
ATTEMPTS = 4
#: Seconds before the second attempt, at most; doubled for each further one.
_FIRST_WAIT_S = 2.0
#: Seconds that a push may be silent for: a registry takes its time over the last byte of a large layer.
_SILENCE_S = 900

T = TypeVar("T")
Event = Mapping[str, Any]  # Any: values of many types, as the engine's JSON has them
#: Returns credentials for the registry, None where docker's own configuration has them.
SignIn = Callable[[], Login | None]


@dataclass(frozen=True)
class Published:
    """What a registry has under a name."""

    digest: str
    media_type: str


class CannotAsk(Exception):
    """Raised by engines that push to registries but do not ask them: podman."""


class _Refused(Exception):
    """Raised with what the engine says when a registry did not do what it was asked."""


class Remote:
    """A name in a registry. Lost connections are retried with jitter; an expired token is renewed once."""

    def __init__(self, client: Any, name: ImageName, sign_in: SignIn, remark: Callable[[str], None]) -> None:
        self.name = name
        self._client = client
        self._sign_in = sign_in
        self._remark = remark
        self._login: Login | None = None

    def published(self) -> Published | None:
        """Return what the registry has under the name. Raises ToolkitError, CannotAsk."""
        return self._patiently(self._ask)

    def push(self, watch: Callable[[Event], None]) -> str:
        """Push the engine's image of this name; return its digest. ``watch`` is told of progress.

        Raises ToolkitError, and KeyboardInterrupt with what was and was not done.
        """
        try:
            return self._patiently(lambda auth: self._push(auth, watch))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted: {self.name} was not written. Layers that have arrived stay in the registry; "
                "the same command goes on from there."
            ) from None

    def _patiently(self, call: Callable[[dict[str, str] | None], T]) -> T:
        attempts, renewed = 0, False
        while True:
            attempts += 1
            try:
                return call(self._auth_config())
            except _Refused as refusal:
                message = str(refusal)
                cause = push_errors.cause(message)
            if cause is Cause.UNAUTHORIZED and self._login and not renewed:
                self._remark("the registry does not accept the token any more; asking for a new one.")
                self._login, renewed = None, True
            elif cause is Cause.DROPPED and attempts < ATTEMPTS:
                wait_s = random.uniform(0.5, 1) * _FIRST_WAIT_S * 2 ** (attempts - 1)
                self._remark(f"{message.strip()}; attempt {attempts + 1} of {ATTEMPTS} in {wait_s:.1f} s.")
                time.sleep(wait_s)
            else:
                raise push_errors.explain(message, self.name, attempts, ecr=self._login is not None)

    def _auth_config(self) -> dict[str, str] | None:
        """Return the credentials of one request to the engine; they are kept nowhere else."""
        self._login = self._login or self._sign_in()
        if self._login is None:
            return None
        return {"username": self._login.username, "password": self._login.password}

    def _ask(self, auth_config: dict[str, str] | None) -> Published | None:
        from docker.errors import APIError, NotFound

        try:
            answer = self._client.api.inspect_distribution(str(self.name), auth_config=auth_config)
        except NotFound:
            return None
        except APIError as error:
            message = error.explanation or str(error)
            if "is not supported" in message:
                raise CannotAsk(message) from error
            raise _Refused(message) from error
        return Published(answer["Descriptor"]["digest"], answer["Descriptor"]["mediaType"])

    def _push(self, auth_config: dict[str, str] | None, watch: Callable[[Event], None]) -> str:
        from docker.errors import APIError

        api, digest = self._client.api, None
        usual, api.timeout = api.timeout, _SILENCE_S
        try:
            events = api.push(
                self.name.address, tag=self.name.tag, stream=True, decode=True, auth_config=auth_config
            )
            for event in events:
                if "error" in event:
                    raise _Refused(event["error"])
                digest = (event.get("aux") or {}).get("Digest") or digest
                watch(event)
        except APIError as error:
            raise _Refused(error.explanation or str(error)) from error
        finally:
            api.timeout = usual
        if digest is None:
            raise ToolkitError(f"the engine says that it pushed {self.name}, but gives no digest.")
        return str(digest)
