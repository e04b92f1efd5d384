"""Where a connector listens, as MMS writes it: ``http://host:port``, ``unix:/path``."""

from __future__ import annotations

import re
from dataclasses import dataclass

_EXPECTED = "http://HOST[:PORT], https://HOST[:PORT] or unix:/PATH, with a port from 0 to 65535"
_TCP = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[^:/\[\]\s]+)(?::(\d{1,5}))?", re.IGNORECASE)
_UNIX = re.compile(r"unix:(/.+)", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """A listening address: ``host`` and ``port`` for http and https, ``path`` for unix, else empty and 0."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str, default_port: int, default_tls_port: int | None = None) -> Address:
        """Read MMS's grammar (MMS: frontend/server ... util/Connector.java) and IPv6 hosts in brackets.

        Port 0 takes a free one. Raises ValueError that says what was expected.
        """
        if unix := _UNIX.fullmatch(text.strip()):
            return cls("unix", path=unix[1])
        found = _TCP.fullmatch(text.strip())
        if found is None:
            raise ValueError(_EXPECTED)
        scheme = found[1].lower()
        default = default_tls_port if scheme == "https" and default_tls_port is not None else default_port
        port = int(found[3]) if found[3] else default
        if port > 65535:
            raise ValueError(_EXPECTED)
        return cls(scheme, found[2].strip("[]"), port)

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"
