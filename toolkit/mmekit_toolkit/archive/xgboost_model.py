"""What an XGBoost model's bytes say: who wrote it, how many columns it takes, their names. Nothing is loaded.

JSON, UBJSON and the old binary format (xgboost: src/learner.cc, LearnerModelParam), in a file or in a pickle.
"""

from __future__ import annotations

import json
import mmap
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

Bytes: TypeAlias = bytes | mmap.mmap

#: 136 bytes of numbers, then the objective's and the booster's name, each after its length in 8 bytes.
_OLD = re.compile(rb"(?s)(binf)?.{136}([\x01-\x40])\0{7}([a-z]+:[a-z_]+).{8}(?:gbtree|gblinear|dart)")
_VERSION_JSON = re.compile(rb'"version"\s*:\s*\[\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\b')
_VERSION_UBJ = re.compile(rb"(?s)L\0{7}\x07version\[(?:\$(.))?#L\0{7}\x03(.{3,27})")
_COLUMNS_JSON = re.compile(rb'"num_feature"\s*:\s*"(\d{1,9})"')
_COLUMNS_UBJ = re.compile(rb"(?s)num_featureSL\0{7}[\x01-\x09](\d{1,9})")
_OBJECTIVE_JSON = re.compile(rb'"objective"\s*:\s*\{[^{}]*?"name"\s*:\s*"([a-z]+:[a-z_]+)"')
_OBJECTIVE_UBJ = re.compile(
    rb"(?s)objective\{(?:(?!objective\{).){0,4096}?L\0{7}\x04nameSL\0{7}[\x01-\x40]([a-z]+:[a-z_]+)"
)
_NAMES_JSON = re.compile(rb'"feature_names"\s*:\s*(?=\[)')
_NAMES_UBJ = re.compile(rb"feature_names\[#L")
#: ``base_score`` as a list: 3.1 and later write it, earlier ones take it for 0.5 and say nothing.
_LISTED_BASE_SCORE = re.compile(rb'(?s)base_score(?:"\s*:\s*"|SL.{8})\[')
#: From this version on the old binary format is not read any more (XGBoost's release notes, 3.1).
OLD_FORMAT_ENDED = (3, 1)
LISTED_BASE_SCORE_SINCE = (3, 1)
_MAX_NAMES = 100_000
_MAX_NAMES_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class XgboostModel:
    """``form`` is ``JSON``, ``UBJSON`` or ``old binary``; what the bytes do not say is None."""

    form: str
    version: tuple[int, ...] | None
    columns: int | None
    names: tuple[str, ...] | None
    objective: str | None
    lists_base_score: bool = False
    #: A file whose end is missing; the old binary format does not tell.
    is_cut: bool = False

    @property
    def version_text(self) -> str | None:
        return None if self.version is None else ".".join(map(str, self.version))


def read_file(path: Path) -> XgboostModel | None:
    """Return what a model's file says, None when it is no model in one of XGBoost's own formats."""
    if path.stat().st_size == 0:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = read_bytes(content)
        is_document = found is not None and found.form != "old binary"
        if found is None or not is_document or content[-64:].rstrip().endswith(b"}"):
            return found
        return replace(found, is_cut=True)


def read_bytes(content: Bytes) -> XgboostModel | None:
    """Return what a model's bytes say; of a long one its beginning and its end do."""
    if old := _OLD.match(content):
        return _old(content, 4 if old[1] else 0, old[3])
    head = content[:64].lstrip()
    if not head.startswith(b"{"):
        return None
    if head[1:2] in (b"L", b"$", b"#"):
        return XgboostModel(
            "UBJSON",
            _ubj_version(content),
            _number(_last(_COLUMNS_UBJ, content)),
            _ubj_names(content),
            _text(_last(_OBJECTIVE_UBJ, content)),
            _LISTED_BASE_SCORE.search(content) is not None,
        )
    version = _last(_VERSION_JSON, content)
    if version is None and content.find(b'"learner"') < 0:
        return None
    return XgboostModel(
        "JSON",
        tuple(int(number) for number in version.groups()) if version else None,
        _number(_last(_COLUMNS_JSON, content)),
        _json_names(content),
        _text(_last(_OBJECTIVE_JSON, content)),
        _LISTED_BASE_SCORE.search(content) is not None,
    )


def _old(content: Bytes, start: int, objective: bytes) -> XgboostModel:
    # base_score, num_feature, num_class, two flags, major and minor version: 4 bytes each
    _, columns, _, _, _, major, minor = struct.unpack_from("<fIiiiII", content, start)
    version = (major, minor) if 0 < major < 100 and minor < 100 else None
    return XgboostModel("old binary", version, columns or None, None, objective.decode())


def _last(pattern: re.Pattern[bytes], content: Bytes) -> re.Match[bytes] | None:
    """Return the last place: parameters follow the trees, and attributes of people's own come first."""
    last = None
    for found in pattern.finditer(content):
        last = found
    return last


def _number(found: re.Match[bytes] | None) -> int | None:
    return int(found[1]) or None if found else None


def _text(found: re.Match[bytes] | None) -> str | None:
    return found[1].decode() if found else None


def _json_names(content: Bytes) -> tuple[str, ...] | None:
    found = _NAMES_JSON.search(content)
    if found is None:
        return None
    text = content[found.end() : found.end() + _MAX_NAMES_BYTES].decode("utf-8", "replace")
    try:
        names, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return tuple(names) if names and all(isinstance(name, str) for name in names) else None


def _ubj_names(content: Bytes) -> tuple[str, ...] | None:
    found = _NAMES_UBJ.search(content)
    if found is None:
        return None
    at = found.end()
    count = int.from_bytes(content[at : at + 8], "big")
    at += 8
    names: list[str] = []
    while len(names) < min(count, _MAX_NAMES):
        if content[at : at + 2] != b"SL":
            return None
        size = int.from_bytes(content[at + 2 : at + 10], "big")
        names.append(content[at + 10 : at + 10 + min(size, 4096)].decode("utf-8", "replace"))
        at += 10 + size
    return tuple(names) or None


def _ubj_version(content: Bytes) -> tuple[int, ...] | None:
    """Read three integers after ``version``: each behind its type, or all behind one ``$type``."""
    found = _last(_VERSION_UBJ, content)
    if found is None:
        return None
    widths = {b"i": 1, b"U": 1, b"I": 2, b"l": 4, b"L": 8}
    shared, numbers = found[1] or b"", found[2]
    version: list[int] = []
    at = 0
    while len(version) < 3:
        kind = shared or numbers[at : at + 1]
        at += 0 if shared else 1
        width = widths.get(kind)
        if width is None or at + width > len(numbers):
            return None
        version.append(int.from_bytes(numbers[at : at + width], "big"))
        at += width
    return tuple(version)
