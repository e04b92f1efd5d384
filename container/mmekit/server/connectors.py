"""The listeners of a server: one port with all routes, or one for inference and one for management.

MMS: util/Connector.java, ModelServer.java. Both connectors share the limits and the body budget.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass, fields

from mmekit.address import Address
from mmekit.config import Config, setting_of
from mmekit.errors import CannotListen
from mmekit.http.limits import BodyBudget, Limits
from mmekit.http.server import HttpServer
from mmekit.http.tls import KeyFiles, server_context
from mmekit.server.routes import Connector, Routes

#: What MMS puts on every answer (MMS: util/NettyUtils.java), so that nothing between caches a prediction.
_COMMON = (
    (b"pragma", b"no-cache"),
    (b"cache-control", b"no-cache; no-store, must-revalidate, private"),
    (b"expires", b"Thu, 01 Jan 1970 00:00:00 UTC"),
)

#: MMS ends the connection after an error.
_CLOSES_FROM = 400


@dataclass(frozen=True)
class _Listener:
    """One address, what is served there, the setting that says so, and who serves it."""

    address: Address
    connector: Connector
    setting: str
    server: HttpServer
    tls: ssl.SSLContext | None

    async def start(self) -> None:
        address = self.address
        try:
            if address.scheme == "unix":
                await self.server.start(path=address.path)
            else:
                await self.server.start(address.host, address.port, tls=self.tls)
        except (OSError, UnicodeError) as error:  # the latter: a host that cannot be in DNS
            raise CannotListen(
                f"The server cannot listen on {address} ({self.setting}): {_reason(error)}."
            ) from None

    @property
    def names(self) -> list[str]:
        """Where it listens: the ports it got, plain HTTP without its scheme."""
        suffix = "" if self.connector is Connector.BOTH else f" for {str(self.connector.name).lower()}"
        scheme = self.address.scheme
        return [
            (
                f"unix:{bound}"
                if isinstance(bound, str)
                else str(Address(scheme, *bound)).removeprefix("http://")
            )
            + suffix
            for bound in self.server.addresses
        ]


class Connectors:
    """The HTTP servers of one process, as one."""

    def __init__(self, config: Config, routes: Routes) -> None:
        """Read keys of https addresses; raises ConfigError where they cannot be used."""
        limits = Limits(
            max_body_bytes=config.max_body_bytes,
            max_body_setting=config.max_body_setting,
            max_connections=config.max_connections,
        )
        budget = BodyBudget(config.body_budget_bytes)
        self._listeners = [
            _Listener(
                address,
                connector,
                setting,
                HttpServer(
                    routes.on(connector),
                    limits,
                    budget,
                    common=_COMMON,
                    refused=routes.manners.cors,
                    closes_from=_CLOSES_FROM,
                    on_refused=routes.manners.refused,
                ),
                server_context(_key_files(config), address.host) if address.scheme == "https" else None,
            )
            for address, connector, setting in _addresses(config)
        ]

    @property
    def addresses(self) -> list[str]:
        """Where the server listens, as the log names it; the inference connector first."""
        return [name for listener in self._listeners for name in listener.names]

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return sum(listener.server.connections for listener in self._listeners)

    async def start(self) -> None:
        """Listen everywhere, or nowhere. Raises CannotListen."""
        try:
            for listener in self._listeners:
                await listener.start()
        except CannotListen:
            self.abort()
            raise

    def stop_accepting(self) -> None:
        for listener in self._listeners:
            listener.server.stop_accepting()

    async def drain(self, timeout_s: float) -> None:
        """Wait until every connection has ended, for at most ``timeout_s``."""
        await asyncio.gather(*(listener.server.drain(timeout_s) for listener in self._listeners))

    def abort(self) -> None:
        for listener in self._listeners:
            listener.server.abort()


def _addresses(config: Config) -> list[tuple[Address, Connector, str]]:
    """Return each address with what it serves and the setting it comes from."""
    inference, management = config.inference_address, config.management_address
    if inference is None or management is None:
        return [(Address("http", config.host, config.port), Connector.BOTH, _name(config, "port"))]
    name = _name(config, "inference_address")
    if inference == management:
        return [(inference, Connector.BOTH, name)]
    return [
        (inference, Connector.INFERENCE, name),
        (management, Connector.MANAGEMENT, _name(config, "management_address")),
    ]


def _key_files(config: Config) -> KeyFiles:
    names = [field.name for field in fields(KeyFiles) if field.name != "names"]
    values = {name: getattr(config, name) for name in names}
    return KeyFiles(**values, names={name: _name(config, name) for name in names})


def _name(config: Config, field_name: str) -> str:
    """Return what people call a setting: MMS's key in MMS mode, else its variable."""
    declared = setting_of(field_name)
    return declared.keys[0][0] if config.mms_mode and declared.keys else declared.names[0]


def _reason(error: OSError | UnicodeError) -> str:
    """Return the system's words for what went wrong; loops put more around them."""
    if isinstance(error, UnicodeError):
        return f"that is no host ({error})"
    if error.errno is not None and error.errno > 0 and error.filename is None:
        return os.strerror(error.errno)
    return error.strerror or str(error)
