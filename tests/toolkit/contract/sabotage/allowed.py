"""Servers that are unusual and break nothing: the kit must not take offence."""

from __future__ import annotations

import threading
import time
from base64 import b64decode, b64encode
from typing import Any

from .container import PAGE, Answer, Container, Refused, Request
from .registry import allowed


@allowed
class BodiesAreEmpty(Container):
    """Sends no body where the contract asks for none: load, unload, ping, errors."""

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        super().load(name, url, headers)
        return Answer(200)

    def unload(self, name: str) -> Answer:
        super().unload(name)
        return Answer(200)

    def conflict(self, name: str) -> Refused:
        refused = super().conflict(name)
        refused.answer.body = b""
        return refused


@allowed
class TokensAreOpaque(Container):
    """Lists seven models a page, with tokens that must be quoted in a query."""

    size = 7

    def list_models(self, token: str) -> Answer:
        start = int(b64decode(token).decode().strip("?>~ ")) if token else 0
        with self.lock:
            entries = [self.models[name].entry() for name in sorted(self.models)]
        page: dict[str, Any] = {"models": entries[start : start + self.size]}
        if start + self.size < len(entries):
            page["nextPageToken"] = b64encode(f"{start + self.size}?>~ ?>~".encode()).decode()
        return Answer(200, page)


@allowed
class TheLastPageIsEmpty(Container):
    """Gives a token after every full page, also when nothing follows (as MMS does)."""

    def list_models(self, token: str) -> Answer:
        answer = super().list_models(token)
        if len(answer.body["models"]) == PAGE:
            answer.body["nextPageToken"] = str(int(token or 0) + PAGE)
        return answer


@allowed
class TheTokenIsNull(Container):
    """Ends a list with a token that is null."""

    def list_models(self, token: str) -> Answer:
        answer = super().list_models(token)
        answer.body.setdefault("nextPageToken", None)
        return answer


@allowed
class EntriesSayMore(Container):
    """Lists and describes models with further fields, in an order of its own."""

    def list_models(self, token: str) -> Answer:
        answer = super().list_models(token)
        answer.body["models"] = [{"status": "READY", **e, "version": 1} for e in answer.body["models"]]
        return answer

    def get(self, name: str) -> Answer:
        answer = super().get(name)
        answer.body = {"modelVersion": "1.0", "workers": [{"id": 9000}], **answer.body}
        return answer


@allowed
class LoadsTakeTurns(Container):
    """Loads one model after the other; the others wait."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = threading.Lock()

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        with self.turn:
            return super().load(name, url, headers)


@allowed
class InvocationsTakeTurns(Container):
    """Answers one invocation of a model after the other; the others wait."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: dict[str, threading.Lock] = {}

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        with self.turns.setdefault(name, threading.Lock()):
            return super().invoke(name, headers, body)


@allowed
class EverythingTakesAWhile(Container):
    """Needs 30 ms for each load and unload, 20 ms for each invocation."""

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        time.sleep(0.03)
        return super().load(name, url, headers)

    def unload(self, name: str) -> Answer:
        time.sleep(0.03)
        return super().unload(name)

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        time.sleep(0.02)
        return super().invoke(name, headers, body)


@allowed
class ConnectionsAreClosed(Container):
    """Closes the connection after each answer."""

    def answer(self, request: Request) -> Answer:
        answer = super().answer(request)
        answer.headers["Connection"] = "close"
        return answer
