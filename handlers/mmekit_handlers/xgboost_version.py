"""Which XGBoost wrote a model, read from the bytes of any of its formats, and whether ours reads it right."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import xgboost as xgb

from mmekit.errors import ModelLoadError

#: Begin of the old binary format (xgboost: src/learner.cc, LearnerModelParamLegacy and what follows):
#: 136 bytes of numbers, then the objective's and the booster's name, each after its length in 8 bytes.
LEGACY_NAMES = re.compile(rb"(?s)(?:binf)?.{136}[\x01-\x40]\0{7}[a-z]+:[a-z_]+.{8}(?:gbtree|gblinear|dart)")
_LEGACY_VERSION_AT = 20

#: ``"version":[3,0,5]`` in JSON; in UBJSON a typed or plain array of integers of 1, 2, 4 or 8 bytes.
_VERSION_JSON = re.compile(rb'"version"\s*:\s*\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)')
_VERSION_UBJ = re.compile(rb"(?s)L\0{7}\x07version\[(?:\$.)?#L\0{7}\x03(.{3,27})")
#: ``base_score`` as a list: XGBoost 3.1 and later write it, earlier ones take it for 0.5 and say nothing.
_LISTED_BASE_SCORE = re.compile(rb'(?s)base_score(?:"\s*:\s*"|SL.{8})\[')
_LISTED_SINCE = (3, 1)


def find_version(raw: bytes | bytearray) -> tuple[int, ...] | None:
    """Return the version of XGBoost that wrote a model, of any format; None when the bytes do not say."""
    if match := _VERSION_JSON.search(raw):
        return tuple(int(number) for number in match.groups())
    if match := _VERSION_UBJ.search(raw):
        return _ubj_integers(match[0], match[1])
    if LEGACY_NAMES.match(raw):
        start = _LEGACY_VERSION_AT + (4 if raw.startswith(b"binf") else 0)
        major, minor = (int(number) for number in np.frombuffer(raw, "<u4", 2, start))
        return (major, minor) if 0 < major < 100 and minor < 100 else None
    return None


def versions(raw: bytes | bytearray) -> str:
    """Return a sentence with the version of the file and ours."""
    version = find_version(raw)
    writer = f"XGBoost {dotted(version)}" if version else "an XGBoost whose version it does not say"
    return f"It was written by {writer}; this is XGBoost {xgb.__version__}"


def ours() -> tuple[int, ...]:
    """Return the version of the XGBoost that is installed."""
    return tuple(int(number) for number in re.findall(r"\d+", xgb.__version__)[:3])


def dotted(version: Sequence[int]) -> str:
    """Write a version with dots."""
    return ".".join(map(str, version))


def check_base_score(raw: bytes | bytearray, name: str) -> None:
    """Raise ``ModelLoadError`` for a file of XGBoost 3.1 or later that an earlier one would misread."""
    if ours()[:2] >= _LISTED_SINCE or not _LISTED_BASE_SCORE.search(raw):
        return
    version = find_version(raw)
    writer = f"XGBoost {dotted(version)}" if version else "XGBoost 3.1 or later"
    raise ModelLoadError(
        f"{name} cannot be read: {versions(raw)}, which takes a base_score that is a list for 0.5 "
        f"and would predict wrongly. Load it with {writer}, save it with booster.save_model('model.json') "
        "and in that file write learner.learner_model_param.base_score as a plain number "
        "('5E-1' for '[5E-1]'), "
        f"or build the image with xgboost-cpu{f'=={dotted(version)}' if version else '>=3.1'}"
    )


def _ubj_integers(field: bytes, content: bytes) -> tuple[int, ...] | None:
    """Read three integers after ``version``: each behind its type, or all behind one ``$type``."""
    widths = {b"i": 1, b"U": 1, b"I": 2, b"l": 4, b"L": 8}
    head = field[: -len(content)]
    shared = head[head.index(b"[$") + 2 :][:1] if b"[$" in head else b""
    numbers: list[int] = []
    offset = 0
    while len(numbers) < 3:
        kind = shared or content[offset : offset + 1]
        offset += 0 if shared else 1
        width = widths.get(kind)
        if width is None or offset + width > len(content):
            return None
        numbers.append(int.from_bytes(content[offset : offset + width], "big"))
        offset += width
    return tuple(numbers)
