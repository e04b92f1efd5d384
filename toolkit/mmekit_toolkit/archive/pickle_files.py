"""The pickles in a model's files: plain, compressed by joblib, behind numpy's headers, in PyTorch's zips."""

from __future__ import annotations

import bz2
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, cast

from mmekit.archive.members import RawMember, raw_members, refusing_broken
from mmekit.errors import InvalidModel
from mmekit_toolkit.archive.pickle_machine import Pickle, scan
from mmekit_toolkit.archive.pickle_source import Limits, Source

#: Files of these names are pickles, or are made to look like ones.
PICKLE_SUFFIXES = (".pkl", ".pickle", ".p", ".joblib", ".sav", ".dill", ".cloudpickle")
#: Suffixes that name a compression behind another suffix.
_COMPRESSIONS = re.compile(r"\.(gz|z|bz2|xz|lzma|lz4)$")

_ZIP = b"PK\x03\x04"
_NUMPY = b"\x93NUMPY"
_LZ4 = b"\x04\x22\x4d\x18"
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
#: torch.save before 1.6: five pickles, the first a number (torch: serialization.py).
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_OLD_TORCH_PICKLES = 5

_READ_BYTES = 64 * 1024
_CHUNK_BYTES = 1024 * 1024
#: Memory for a decompressor's dictionary; xz -9 takes 64 MiB.
_LZMA_MEMORY_BYTES = 256 * 1024 * 1024
#: Members of one zip that are looked into.
_MAX_MEMBERS = 1000
#: numpy's header is a dict of a few hundred bytes (numpy: format.py).
_MAX_HEADER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Found:
    """A pickle and where it lies: a member of the file where that is a zip, else an empty text."""

    member: str
    pickle: Pickle


def may_hold_pickles(name: str, head: bytes) -> bool:
    """Say whether a file may hold pickles, by its name and its first bytes."""
    plain = _COMPRESSIONS.sub("", name.lower())
    return plain.endswith(PICKLE_SUFFIXES) or bool(_PICKLE.match(head)) or head.startswith((_ZIP, _NUMPY))


def pickles_of(path: Path, limits: Limits) -> list[Found]:
    """Look into a file's pickles without loading them; none where it holds none.

    Raises OSError when the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(0)
        if head.startswith(_ZIP):
            return _in_zip(path, limits)
        if head.startswith(_NUMPY):
            pickle = _behind_numpy_header(Source(file, limits, can_seek=True))
            return [Found("", pickle)] if pickle else []
        if head.startswith(_LZ4):
            return [Found("", Pickle(problem="it is compressed with lz4, which is not looked into"))]
        if head.startswith(_OLD_TORCH):
            source = Source(file, limits, can_seek=True)
            return [Found("", scan(source)) for _ in range(_OLD_TORCH_PICKLES)]
        decompressor = _decompressor(head)
        if decompressor is None:
            return [Found("", scan(Source(file, limits, can_seek=True)))]
        return [Found("", scan(Source(_stream(_inflated(file, decompressor)), limits)))]


# --- zip ---------------------------------------------------------------------------------


def _in_zip(path: Path, limits: Limits) -> list[Found]:
    """Look into the pickles of torch.save, torch.jit.save and np.savez."""
    found: list[Found] = []
    try:
        with refusing_broken(path.name), closing(raw_members(path, path.name)) as members:
            for member in members:
                if pickle := _in_member(member, limits):
                    found.append(Found(member.name, pickle))
                if len(found) >= _MAX_MEMBERS:
                    found.append(Found("", Pickle(problem=f"it has more than {_MAX_MEMBERS} pickles")))
                    break
    except InvalidModel:
        found.append(Found("", Pickle(problem="it is a damaged zip archive", is_damaged=True)))
    return found


def _in_member(member: RawMember, limits: Limits) -> Pickle | None:
    if not member.name.endswith((".pkl", ".pickle", ".npy")):
        return None
    if member.encrypted or member.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return Pickle(problem="it is encrypted, or compressed in a way that is not looked into")
    source = Source(_stream(member.chunks()), limits)
    return _behind_numpy_header(source) if member.name.endswith(".npy") else scan(source)


def _behind_numpy_header(source: Source) -> Pickle | None:
    """Return the pickle of an array of objects; None for other arrays, which have none."""
    try:
        magic = source.read(8)
        size = int.from_bytes(source.read(2 if magic[6] == 1 else 4), "little")
        header = source.read(min(size, _MAX_HEADER_BYTES))
    except EOFError:
        return Pickle(problem="its header is damaged", is_damaged=True)
    return scan(source) if re.search(rb"'\|?O", header) else None


# --- streams -------------------------------------------------------------------------------


class _Decompressor(Protocol):
    """What bz2 and lzma offer."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Zlib:
    """zlib's, zlib or gzip, in the same form."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=47)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _decompressor(head: bytes) -> _Decompressor | None:
    """Return what undoes joblib's ``compress=`` (joblib: compressor.py), None for what is not compressed."""
    if head.startswith((b"\x1f\x8b", b"x\x01", b"x\x5e", b"x\x9c", b"x\xda")):
        return _Zlib()
    if head.startswith(b"BZh"):
        return bz2.BZ2Decompressor()
    if head.startswith((b"\xfd7zXZ", b"\x5d\x00")):
        return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY_BYTES)
    return None


def _inflated(file: IO[bytes], decompressor: _Decompressor) -> Iterator[bytes]:
    while not decompressor.eof:
        data = file.read(_READ_BYTES) if decompressor.needs_input else b""
        if not data and decompressor.needs_input:
            raise EOFError
        yield decompressor.decompress(data, _CHUNK_BYTES)


class _Chunks(io.RawIOBase):
    """Pieces one after the other as a file that is read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed: any buffer
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _stream(chunks: Iterator[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", io.BufferedReader(_Chunks(chunks), _READ_BYTES))
