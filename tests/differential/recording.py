"""Runs a scenario against both engines, once, and keeps their replies."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.differential.exchange import STORE, Exchange, Scenario
from tests.support.mms import Engine, Mmekit, Mms, free_port
from tests.support.server import until
from tests.support.wire import Reply, talk

_MODELS = Path(__file__).parent / "models"

Replies = dict[str, list[Reply]]


@dataclass
class Recording:
    """Exchange → replies, of both engines; why an engine did not get there."""

    mms: Replies
    ours: Replies
    failed: str = ""


def record(scenario: Scenario, folder: Path) -> Recording:
    """Run both engines side by side in ``folder``."""
    store = folder / "store"
    shutil.copytree(_MODELS, store, ignore=shutil.ignore_patterns("__pycache__"))
    if scenario.prepare is not None:
        scenario.prepare(store)
    recording = Recording({}, {})
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(_run, engine, scenario, folder, replies)
            for engine, replies in ((Mms, recording.mms), (Mmekit, recording.ours))
        ]
        for run in runs:
            try:
                run.result()
            except (AssertionError, OSError) as error:
                recording.failed += f"{error}\n"
    return recording


def _run(kind: type[Engine], scenario: Scenario, folder: Path, replies: Replies) -> None:
    home = folder / kind.name
    values = {STORE: str(folder / "store"), "@HOME@": str(home), "@PORT@": str(free_port())}

    def filled(text: str) -> str:
        for name, value in values.items():
            text = text.replace(name, value)
        return text

    settings = {"model_store": STORE, **scenario.properties}
    properties = {key: filled(value) for key, value in settings.items()}
    with kind(home, properties, scenario.environ) as engine:
        for exchange in scenario.exchanges:
            replies[exchange.name] = _exchanged(engine, exchange, str(folder / "store"))


def _exchanged(engine: Engine, exchange: Exchange, store: str) -> list[Reply]:
    address = engine.inference if exchange.on == "inference" else engine.management
    sent = _with_store(exchange.sent, store)
    timeout_s = exchange.mms_timeout_s if isinstance(engine, Mms) else 30

    def once() -> list[Reply]:
        replies = talk(address, sent, exchange.methods, timeout_s)
        for reply in replies:
            reply.body = reply.body.replace(store.encode(), STORE.encode())
        return replies

    if exchange.until:

        def ready() -> list[Reply]:
            replies = once()
            return replies if replies[0].status == exchange.until else []

        found: list[Reply] = until(ready, 30, f"{engine.name}: {exchange.name} answering {exchange.until}")
        return found
    return once()


def _with_store(sent: bytes, store: str) -> bytes:
    """Put the store's path in; the length that the request states follows."""
    if STORE.encode() not in sent:
        return sent
    head, _, body = sent.partition(b"\r\n\r\n")
    before = len(body)
    head, body = (part.replace(STORE.encode(), store.encode()) for part in (head, body))
    head = head.replace(b"Content-Length: %d" % before, b"Content-Length: %d" % len(body))
    return head + b"\r\n\r\n" + body
