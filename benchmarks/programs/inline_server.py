"""The in-process limit: mmekit's handlers called straight from one HTTP process's event loop.

httptools and uvloop with nothing between: no worker, no queue, no limits, no isolation. One model's
call holds every other, and a crash ends all; this is what mmekit is measured against, not an
alternative to it. Run as ``python inline_server.py PORT``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import cast
from urllib.parse import unquote

import httptools
import uvloop

from mmekit import artifact
from mmekit.worker import loader
from mmekit.worker.context import Request
from mmekit.worker.messages import Load

models: dict[str, loader.LoadedModel] = {}


class Connection(asyncio.Protocol):
    """One keep-alive connection; a request is answered as soon as its last byte is there."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._parser = httptools.HttpRequestParser(self)
        self.on_message_begin()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._url.endswith(b"/invoke"):
            name = self._url[len(b"/models/") : -len(b"/invoke")].decode()
            self._invoke(name if "%" not in name else unquote(name))
        elif self._url == b"/ping":
            self._answer(200, b"application/json", b"{}")
        else:
            load(json.loads(self._body))
            self._answer(200, b"application/json", b'{"status": "loaded"}')

    def _invoke(self, name: str) -> None:
        result = models[name]([Request(self._headers, self._body, "")], False)[0]
        if isinstance(result, BaseException):
            self._answer(500, b"text/plain", repr(result).encode())
            return
        assert isinstance(result.body, bytes)
        self._answer(result.status, (result.content_type or "text/plain").encode(), result.body)

    def _answer(self, status: int, content_type: bytes, body: bytes) -> None:
        self.transport.write(
            b"HTTP/1.1 %d OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (status, content_type, len(body), body)
        )


def load(settings: dict[str, str]) -> None:
    """Load a model as a worker does."""
    found = artifact.inspect(settings["url"])
    message = Load(
        model=settings["model_name"],
        path=settings["url"],
        handler=settings.get("handler"),
        program=found.program,
        runtime=found.runtime,
        code_dirs=list(found.code_dirs),
        batch_size=1,
        gpu_id=None,
        grant_bytes=None,
    )
    models[message.model] = loader.load(message, os.environ)


async def main(port: int) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
