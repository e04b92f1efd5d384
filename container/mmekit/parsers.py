"""From the text of a setting to its value; a ValueError says what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from mmekit.address import Address

Parser: TypeAlias = Callable[[str], Any]

#: What a parser returns for a text that stands for "not set".
UNSET = object()


def whole(minimum: int, maximum: int | None = None, scale: int = 1) -> Parser:
    """Whole numbers within bounds; ``scale`` turns the unit of the text into that of the field."""
    bounds = f"a whole number from {minimum}" + (f" to {maximum}" if maximum is not None else " up")

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,18}", text.strip()):
            raise ValueError(bounds)
        number = int(text)
        if number < minimum or (maximum is not None and number > maximum):
            raise ValueError(bounds)
        return number * scale

    return parse


def number(minimum: float, scale: float = 1.0) -> Parser:
    """Numbers above ``minimum``."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise ValueError(f"a number above {minimum:g}") from None
        if not minimum < number < float("inf"):
            raise ValueError(f"a number above {minimum:g}")
        return number * scale

    return parse


def number_from(minimum: float) -> Parser:
    """Numbers from ``minimum`` on."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not minimum <= number < float("inf"):
            raise ValueError(f"a number from {minimum:g} up")
        return number

    return parse


def unless(unset: str, parser: Parser) -> Parser:
    """What ``parser`` reads, but one text stands for "not set"."""

    def parse(text: str) -> Any:
        return UNSET if text.strip() == unset else parser(text)

    return parse


def text(text: str) -> str:
    return text.strip()


def header_value(text: str) -> str:
    """What may stand in a header of an answer."""
    value = text.strip()
    if not re.fullmatch(r"[\x20-\x7e]+", value):
        raise ValueError("printable ASCII text on one line")
    return value


def flag(text: str) -> bool:
    """Read true, 1, yes, on and their opposites."""
    value = text.strip().lower()
    if value in ("true", "1", "yes", "on"):
        return True
    if value in ("false", "0", "no", "off", ""):
        return False
    raise ValueError("true or false")


def exactly_true(text: str) -> bool:
    """As sagemaker-inference reads SAGEMAKER_MULTI_MODEL: only ``true`` is true."""
    return text == "true"


def boolean(text: str) -> bool:
    """As Java's properties write it: ``true`` or ``false`` in any case."""
    value = text.strip().lower()
    if value not in ("true", "false"):
        raise ValueError("true or false")
    return value == "true"


def choice(*values: str) -> Parser:
    """One of these words, in any case."""

    def parse(text: str) -> str:
        value = text.strip().lower()
        if value not in values:
            raise ValueError("one of " + ", ".join(values))
        return value

    return parse


def exactly(*values: str) -> Parser:
    """One of these words, as written."""

    def parse(text: str) -> str:
        if text not in values:
            raise ValueError("one of " + ", ".join(values))
        return text

    return parse


def device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError("auto, cpu, cuda or cuda:N")
    return text


def port_range(text: str) -> tuple[int, int]:
    """Two port numbers, inclusive (AWS: inference-pipeline-real-time)."""
    match = re.fullmatch(r"\s*(\d{1,5})-(\d{1,5})\s*", text)
    if not match or not 0 < int(match[1]) <= int(match[2]) <= 65535:
        raise ValueError("two port numbers FIRST-LAST, such as 25000-25999")
    return int(match[1]), int(match[2])


_LEVELS = {"debug": 10, "info": 20, "warning": 30, "warn": 30, "error": 40, "critical": 50}


def log_level(text: str) -> int:
    value = text.strip().lower()
    if value in _LEVELS:
        return _LEVELS[value]
    if value.isdigit() and 0 <= int(value) <= 50:
        return int(value)
    raise ValueError("a level of Python's logging: a number from 0 to 50 or " + ", ".join(_LEVELS))


def debug_level(text: str) -> Any:
    """``true`` is the level DEBUG, ``false`` leaves the level."""
    return _LEVELS["debug"] if boolean(text) else UNSET


def path(text: str) -> Path:
    return Path(text.strip())


def pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text.strip())
    except re.error as error:
        raise ValueError(f"a regular expression ({error})") from None


def address(default_port: int, default_tls_port: int) -> Parser:
    """An address to listen on; the ports are for texts that name none."""

    def parse(text: str) -> Address:
        return Address.parse(text, default_port, default_tls_port)

    return parse
