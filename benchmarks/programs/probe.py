"""Sends requests at fixed times and reports how long each took from the time it was due.

Reads one JSON line of settings, then sends until a second line comes; see ``benchmarks.load.Probe``.
Several connections, so that a slow answer does not keep the next request from leaving on time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from typing import Any

# asyncio's clock is that of time.monotonic, which all processes of a machine share.

#: A request that finds this many unanswered before it is not sent; 60 s at 2 ms would be 30,000.
_CONNECTIONS_AT_MOST = 256


class Prober:
    """One run: a pool of keep-alive connections and what came back."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._requests = [bytes.fromhex(text) for text in settings["requests"]]
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.answers: list[tuple[float, float]] = []
        self.errors: list[str] = []

    async def run(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        due, number = loop.time(), 0
        running: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            if len(running) < _CONNECTIONS_AT_MOST:
                task = asyncio.create_task(self._ask(self._requests[number % len(self._requests)], due))
                running.add(task)
                task.add_done_callback(running.discard)
            number += 1
            due += self._settings["interval_s"]
            await asyncio.sleep(max(0.0, due - loop.time()))
        await asyncio.gather(*running)

    async def _ask(self, request: bytes, due: float) -> None:
        try:
            if self._idle:
                reader, writer = self._idle.pop()
            else:
                address = self._settings["host"], self._settings["port"]
                reader, writer = await asyncio.open_connection(*address)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(_content_length(head))
        except (OSError, EOFError) as error:
            self.errors.append(repr(error))
            return
        self.answers.append((due, (asyncio.get_running_loop().time() - due) * 1000))
        if not head.startswith(b"HTTP/1.1 2"):
            self.errors.append(head.split(b"\r\n")[0].decode() + " " + body[:200].decode(errors="replace"))
        self._idle.append((reader, writer))


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


async def main() -> None:
    prober = Prober(json.loads(sys.stdin.readline()))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    gc.disable()
    await prober.run(stop)
    print(json.dumps({"answers": prober.answers, "errors": prober.errors}))


if __name__ == "__main__":
    asyncio.run(main())
