"""What server, template and workers say to each other: one dataclass a meaning, one codec.

A frame is ``<II`` (length of the meta part, length of the body part), then the meta part (msgpack,
a tagged array) and the body part (raw bytes: request or answer bodies one after the other). The
body part never passes through the codec, so a 20 MB request costs two copies and no parsing.

One call at a time: after ``Load``, ``Unload`` or ``Invoke`` the server sends nothing but ``Cancel``
until the worker has answered.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

#: Lengths of meta and body, little endian, 8 bytes in all.
HEADER = struct.Struct("<II")

#: Names and values as they came over the wire (latin-1 bytes, RFC 9112 section 5).
Headers: TypeAlias = list[tuple[bytes, bytes]]


class _Message(msgspec.Struct, array_like=True, tag=True, gc=False):
    pass


# --- shared parts ----------------------------------------------------------------------------


class Failure(msgspec.Struct, array_like=True, gc=False):
    """Why a load or a call failed, ready to be answered as ``{"code", "type", "message"}``."""

    status: int
    type: str
    message: str


class Call(msgspec.Struct, array_like=True, gc=False):
    """One request of an ``Invoke``; its body is the next ``length`` bytes of the body part.

    ``query`` is the raw query string where it is an input of the handler.
    """

    request_id: str
    headers: Headers
    length: int
    query: str = ""


class Reply(msgspec.Struct, array_like=True, gc=False):
    """One answer of an ``Answer``; its body is the next ``length`` bytes of the body part."""

    status: int
    headers: Headers
    length: int
    failure: Failure | None = None
    reason: str = ""


# --- from the server to a worker ---------------------------------------------------------------


class Load(_Message):
    """Load a model.

    ``handler`` is ``module:attribute`` of code to run, ``program`` the file name of a user's
    program with ``model_fn`` and its siblings, ``runtime`` the built-in handler that recognised
    the model's file; they are tried in this order and at least one is set (see ``artifact``).
    ``code_dirs`` go in front of the import path. ``grant_bytes`` is how far the worker's data
    may grow meanwhile (``RLIMIT_DATA``) and ``standing_bytes`` how far afterwards; None sets no limit.
    ``decode``: an MMS handler gets JSON and text bodies decoded. ``max_response_bytes`` bounds each
    answer's body. ``chdir``: the worker is this model's alone and works in its folder, as in MMS.
    ``manifest`` is the text of its JSON, which may hold numbers and texts that msgpack cannot.
    """

    model: str
    path: str
    handler: str | None
    program: str | None
    runtime: str | None
    code_dirs: list[str]
    batch_size: int
    gpu_id: int | None
    grant_bytes: int | None
    standing_bytes: int | None = None
    target_model: str = ""
    manifest: str | None = None
    decode: bool = False
    max_response_bytes: int | None = None
    chdir: bool = False


class Unload(_Message):
    model: str


class Invoke(_Message):
    """Predict for one or several requests of one model; ``alone`` forbids stacking their rows."""

    model: str
    calls: list[Call]
    alone: bool = False


class Cancel(_Message):
    """The client of the running call has gone: stop streaming."""


class Clone(_Message):
    """Fork this process into a further worker that holds the same model.

    The worker answers ``CloneReady`` and then expects ``Fork`` as the template does, or ``Cancel``; its
    ``Forked`` comes at the end, or at once when it refuses.
    """

    model: str


# --- from a worker to the server ---------------------------------------------------------------


class Started(_Message):
    """The worker can take calls. ``anon_bytes``: its anonymous memory before any model."""

    pid: int
    anon_bytes: int


class Loaded(_Message):
    """``cost_bytes``: anonymous memory that the model added after trimming, never negative.

    ``batches``: the model takes several requests in one call.
    """

    model: str
    cost_bytes: int
    peak_bytes: int
    load_ms: float
    batches: bool


class LoadFailed(_Message):
    """``out_of_grant``: the load ran into ``grant_bytes``, more memory may help."""

    model: str
    failure: Failure
    out_of_grant: bool
    peak_bytes: int


class Unloaded(_Message):
    model: str


class Answer(_Message):
    """The end of an ``Invoke``: one reply a call, in order."""

    replies: list[Reply]


class StreamStart(_Message):
    """The single call of an ``Invoke`` answers in parts; ``Part`` frames and ``StreamEnd`` follow."""

    status: int
    headers: Headers
    reason: str = ""


class Part(_Message):
    """A piece of the answer: the frame's body part."""


class StreamEnd(_Message):
    """The end of a streamed answer; with a ``failure`` the connection is cut, not completed."""

    failure: Failure | None


class CloneReady(_Message):
    """Nothing is in the way of a ``Clone``: the worker waits for the descriptors."""


# --- server and template -------------------------------------------------------------------------


class TemplateReady(_Message):
    """Imports are done and workers can be forked. ``modules``: top-level names in sys.modules."""

    pid: int
    modules: list[str]
    anon_bytes: int
    imports_ms: float


class Fork(_Message):
    """Fork a worker; the frame carries two descriptors: its channel and its log pipe.

    Sent to the template, and to a worker that is ready for a ``Clone``.
    """

    number: int


class Forked(_Message):
    """``error`` is set when the kernel refused (too many processes, no memory).

    ``unsafe``: the process refused, because a fork of it would not work; that will not change.
    """

    number: int
    error: str | None
    unsafe: bool = False


Message: TypeAlias = (
    Load
    | Unload
    | Invoke
    | Cancel
    | Started
    | Loaded
    | LoadFailed
    | Unloaded
    | Answer
    | StreamStart
    | Part
    | StreamEnd
    | TemplateReady
    | Fork
    | Forked
    | Clone
    | CloneReady
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message, body_length: int = 0) -> bytes:
    """Return header and meta part; the caller sends ``body_length`` bytes after it."""
    meta = _encoder.encode(message)
    return HEADER.pack(len(meta), body_length) + meta


def header_text(value: bytes) -> str:
    """Return a header's value for the log: UTF-8, which clients write, else Latin-1 (RFC 9110, 5.5)."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def split(body: memoryview, lengths: Sequence[int]) -> list[memoryview]:
    """Cut a body part into the pieces its message announced."""
    pieces = []
    start = 0
    for length in lengths:
        pieces.append(body[start : start + length])
        start += length
    return pieces


class FrameReader:
    """Turns received bytes into ``(message, body)``; holds what is not complete yet.

    Large bodies are written into one buffer of their final size as they come, so receiving costs
    time linear in the length however small the pieces are.
    """

    def __init__(self) -> None:
        self._head = bytearray()
        self._message: Message | None = None
        self._body = bytearray()
        self._filled = 0

    def feed(self, data: bytes) -> list[tuple[Message, bytes | bytearray]]:
        """Take received bytes; return the frames that they complete, in order.

        Raises ``msgspec.DecodeError`` when the peer does not speak this protocol.
        """
        if self._message is None and not self._head and len(data) >= HEADER.size:
            meta_length, body_length = HEADER.unpack_from(data)
            end = HEADER.size + meta_length
            if len(data) == end + body_length:  # just one whole frame: nearly always
                return [(_decoder.decode(data[HEADER.size : end]), data[end:])]
        frames: list[tuple[Message, bytes | bytearray]] = []
        view = memoryview(data)
        while True:
            if self._message is not None:
                take = min(len(view), len(self._body) - self._filled)
                self._body[self._filled : self._filled + take] = view[:take]
                self._filled += take
                view = view[take:]
                if self._filled < len(self._body):
                    return frames
                frames.append((self._message, self._body))
                self._message = None
                self._body = bytearray()
            if not view:
                return frames
            # Usually a whole frame is there: no copy into the head buffer.
            source: bytearray | memoryview = view
            if self._head:
                self._head += view
                source = memoryview(bytes(self._head))
                self._head.clear()
            if len(source) < HEADER.size:
                self._head += source
                return frames
            meta_length, body_length = HEADER.unpack_from(source)
            end = HEADER.size + meta_length
            if len(source) < end:
                self._head += source
                return frames
            message = _decoder.decode(source[HEADER.size : end])
            view = memoryview(source)[end:]
            if len(view) >= body_length:
                frames.append((message, bytes(view[:body_length])))
                view = view[body_length:]
            else:
                self._message = message
                self._body = bytearray(body_length)
                self._filled = 0
