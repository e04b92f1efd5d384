"""Deliberate differences that many exchanges show: one engine answers what the other refuses."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from tests.differential.exchange import Exchange


def bad_request(exchange: Exchange, name: str, message: Any = ...) -> Exchange:
    """It is the client's mistake to mmekit; MMS has an internal error or loses its worker."""
    return exchange.differing(
        name, status=400, reason="Bad Request", code=400, type="BadRequestException", message=message
    )


def answered(exchange: Exchange, name: str, body: Any, **ours: Any) -> Exchange:
    """MMS refuses."""
    if exchange.on == "inference":
        # The handler's answer has no type of its own.
        ours = {"header__content_type": None, **ours}
    values = {"status": 200, "reason": "OK", "closed": False, "header__connection": "keep-alive"}
    return exchange.differing(name, **{**values, "body": body, **ours})


def refused(exchange: Exchange, name: str, status: int = 500, **ours: Any) -> Exchange:
    """MMS answers with 200."""
    values = {"status": status, "closed": True, "header__connection": "close", "body": None}
    if exchange.on == "inference":
        values["header__content_type"] = "application/json"
    else:
        values["reason"] = HTTPStatus(status).phrase
    return exchange.differing(name, **{**values, **ours})
