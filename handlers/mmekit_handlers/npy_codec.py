"""``application/x-npy`` and ``application/x-npz`` ⇄ arrays; nothing here ever unpickles.

The header of an array is checked against the length of the body before memory is taken for it.
"""

from __future__ import annotations

import io
import tokenize
import warnings
import zipfile
from functools import lru_cache
from typing import Any

import numpy as np

from mmekit.errors import BadRequest, NotAcceptable
from mmekit_handlers.table import EMPTY_BODY, Array

#: No header of numbers is longer; numpy itself reads at most 10,000 bytes.
_HEADER_BYTES = 16384

#: Sum of the unpacked members of an npz body, in bytes; a zip bomb stops here.
MAX_NPZ_BYTES = 256 << 20


def read_npy(body: bytes, text: bool = False) -> Array:
    """Read one array of numbers or bools, of any shape, in native byte order; ``text`` allows str.

    The result is writable. Raises ``BadRequest`` for anything else, object arrays included.
    """
    if not body:
        raise BadRequest(EMPTY_BODY)
    shape, fortran, dtype, start = _header(body)
    if dtype.kind == "O" or dtype.hasobject:
        raise BadRequest("the npy body is an array of objects, which needs pickle; send numbers")
    if dtype.kind not in ("biufU" if text else "biuf"):
        raise BadRequest(f"the npy body is an array of {dtype}; expected numbers")
    count = 1
    for length in shape:
        count *= length
    expected = count * dtype.itemsize
    if len(body) - start != expected:
        raise BadRequest(
            f"the npy header says {dtype} of shape {shape}, {expected} bytes; {len(body) - start} follow it"
        )
    array = np.frombuffer(body, dtype, count, start) if expected else np.empty(count, dtype)
    array = array.reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), order="C")


def write_npy(values: Array) -> bytes:
    """Write one array; an object array of strings is written as fixed-width unicode."""
    if values.dtype.kind == "O":
        flat = values.ravel().tolist()
        if not all(isinstance(item, str) for item in flat):
            raise NotAcceptable("this prediction holds Python objects, which application/x-npy cannot hold")
        values = np.array(flat, np.str_).reshape(values.shape)
    out = io.BytesIO()
    np.lib.format.write_array(out, values, allow_pickle=False)
    return out.getvalue()


def read_npz(body: bytes) -> Any:
    """Read a sparse matrix written by ``scipy.sparse.save_npz``; returns it in CSR form."""
    from scipy import sparse

    if not body:
        raise BadRequest(EMPTY_BODY)
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_NPZ_BYTES:
            raise BadRequest(f"the npz body unpacks to {size} bytes; at most {MAX_NPZ_BYTES} are read")
        return sparse.csr_matrix(sparse.load_npz(io.BytesIO(body)))
    except BadRequest:
        raise
    except Exception as error:  # noqa: BLE001 - zipfile, zlib, numpy and scipy each raise their own
        raise BadRequest(
            f"the npz body is not a sparse matrix as scipy.sparse.save_npz writes it: {error}"
        ) from None


def _header(body: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, column order, dtype and where the data starts."""
    # NEP 1: magic, two bytes of version, the length of the header in two bytes (1.0) or four (2.0).
    size = 2 if body[6:7] == b"\x01" else 4
    start = 8 + size + int.from_bytes(body[8 : 8 + size], "little")
    return (*_parse_header(body[: min(start, _HEADER_BYTES)]), start)


@lru_cache(maxsize=64)
def _parse_header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read a header, which numpy does with ``ast``; requests of one client have the same one."""
    stream = io.BytesIO(head)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a header from Python 2: read it, it costs nothing
            version = np.lib.format.read_magic(stream)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if read is None:
                raise BadRequest(f"the npy body has format version {version}; expected (1, 0) or (2, 0)")
            shape, fortran, dtype = read(stream)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError) as error:
        text = str(error).partition("\n")[0]
        raise BadRequest(f"the body is not npy: {text}") from None
    if any(length < 0 for length in shape):
        raise BadRequest(f"the npy body says shape {shape}")
    return shape, fortran, dtype
