"""The worker's loop: one call at a time over one socket; loads, unloads and runs models.

A worker is forked from the template, or started as ``python -m mmekit.worker.main`` where nothing
must be shared (a GPU's worker; a model whose code shadows what the template imported).
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import NoReturn

from mmekit import process
from mmekit.errors import PredictionFailed
from mmekit.worker import failures, loader, output
from mmekit.worker.context import Request
from mmekit.worker.messages import (
    Answer,
    Call,
    Cancel,
    Failure,
    FrameReader,
    Headers,
    Invoke,
    Load,
    Loaded,
    LoadFailed,
    Message,
    Part,
    Reply,
    Started,
    StreamEnd,
    StreamStart,
    Unload,
    Unloaded,
    encode,
    split,
)

_log = logging.getLogger(__name__)

#: Where a worker finds its channel to the server.
CHANNEL = 3

#: Received at once; larger buffers are slower for the usual small frames (hotpath study, section 2).
_RECEIVE_BYTES = 65536

#: A streamed part is cut into frames of at most this, so that the server's loop is never held long.
_PART_BYTES = 256 * 1024

#: Headers that the server writes; what a handler sets them to is dropped, as MMS overwrites it.
_SERVERS_HEADERS = frozenset({"connection", "content-length", "date", "transfer-encoding", "x-request-id"})


class Worker:
    """Holds models by name and answers the server's messages, one after the other."""

    def __init__(self, channel: socket.socket, environ: Mapping[str, str], streams: output.Streams) -> None:
        self.channel = channel
        self.environ = environ
        self.streams = streams
        self.models: dict[str, loader.LoadedModel] = {}
        self.reader = FrameReader()

    def run(self) -> None:
        """Serve until the server closes the channel."""
        self.send(Started(os.getpid(), process.anonymous_bytes()))
        while data := self.channel.recv(_RECEIVE_BYTES):
            for message, body in self.reader.feed(data):
                self.dispatch(message, body)

    def dispatch(self, message: Message, body: bytes | bytearray) -> None:
        if isinstance(message, Invoke):
            self.invoke(message, body)
        elif isinstance(message, Load):
            self.load(message)
        elif isinstance(message, Unload):
            self.unload(message)
        elif not isinstance(message, Cancel):  # a Cancel that crossed the end of its stream
            raise TypeError(f"the server sent {type(message).__name__}, which is not for workers")

    # --- loads -----------------------------------------------------------------------------

    def load(self, message: Load) -> None:
        loader.import_built_in(message)  # the image's share, not the model's: before the grant counts
        before = process.anonymous_bytes()
        process.reset_peak()
        resident = process.status_bytes("VmRSS")
        started = time.monotonic()
        self.streams.model = message.model
        reply: Message
        try:
            self._limit(message.grant_bytes)
            model = loader.load(message, self.environ)
        except BaseException as error:  # noqa: BLE001 - people's code: exit() is one of its answers too
            process.limit_data(None)  # the report needs memory too
            peak = max(0, process.status_bytes("VmHWM") - resident)
            failure = failures.failure_of(error, message.code_dirs or [message.path], "load")
            failures.log_failure(error, message.model, failure)
            reply = LoadFailed(message.model, failure, failure.status == 507, peak)
        else:
            load_ms = (time.monotonic() - started) * 1000
            peak = max(0, process.status_bytes("VmHWM") - resident)
            self.models[message.model] = model
            process.trim_heap()  # the garbage of parsing: 25 → 2 MiB for a 1,000-tree XGBoost JSON
            cost = max(0, process.anonymous_bytes() - before)
            reply = Loaded(message.model, cost, peak, load_ms, model.batches)
        if isinstance(reply, LoadFailed):
            _give_back()  # not before: the exception holds what the load had made
        self._limit(message.standing_bytes)
        self.streams.flush()
        self.send(reply)

    def _limit(self, growth_bytes: int | None) -> None:
        """Bound what this worker may allocate from now on; never where CUDA reserves address space."""
        if growth_bytes is not None:
            process.limit_data(None)
            process.limit_data(process.status_bytes("VmData") + growth_bytes)

    def unload(self, message: Unload) -> None:
        self.streams.model = message.model
        model = self.models.pop(message.model, None)
        if model is not None:
            model.close()
            del model
        _give_back()
        self.streams.flush()
        self.send(Unloaded(message.model))

    # --- calls -----------------------------------------------------------------------------

    def invoke(self, message: Invoke, body: bytes | bytearray) -> None:
        self.streams.model = message.model
        requests = _requests(message.calls, body)
        results = self._predict(message, requests)
        self.streams.flush()
        if len(results) == 1 and _streams(results[0]):
            self._stream(message, results[0])
            return
        replies, bodies, fatal = [], [], False
        for result in results:
            reply, payload, is_fatal = self._reply(message, result)
            fatal = fatal or is_fatal
            replies.append(reply)
            bodies.append(payload)
        self.send(Answer(replies), bodies)
        if fatal:
            _log.error("The device's context is lost; this worker ends and is replaced.")
            leave(1)

    def _predict(self, message: Invoke, requests: list[Request]) -> list[loader.Result]:
        try:
            results = self.models[message.model](requests, message.alone)
        except BaseException as error:  # noqa: BLE001 - people's code
            return [error] * len(requests)
        if len(results) != len(requests):
            mismatch = PredictionFailed(
                f"The handler gave {len(results)} answers to {len(requests)} requests."
            )
            return [mismatch] * len(requests)
        return results

    def _reply(self, message: Invoke, result: loader.Result) -> tuple[Reply, bytes, bool]:
        if not isinstance(result, BaseException):
            try:
                body = _whole(result.body)
                return Reply(result.status, _headers(result), len(body), None, result.reason), body, False
            except BaseException as error:  # noqa: BLE001 - a generator is people's code too
                result = error
        failure = self._failure(message, result)
        return Reply(failure.status, [], 0, failure), b"", bool(getattr(result, "fatal", False))

    def _failure(self, message: Invoke, error: BaseException) -> Failure:
        model = self.models.get(message.model)
        failure = failures.failure_of(error, model.code_dirs if model else [], "invoke")
        failures.log_failure(error, message.model, failure)
        return failure

    # --- streamed answers --------------------------------------------------------------------

    def _stream(self, message: Invoke, result: loader.Result) -> None:
        assert not isinstance(result, BaseException)
        failure = None
        started = False
        try:
            for part in _parts(result.body):
                if not started:
                    self.send(StreamStart(result.status, _headers(result), result.reason))
                    started = True
                if self._cancelled():
                    break
                self.send(Part(), [part])
            if not started:
                self.send(StreamStart(result.status, _headers(result), result.reason))
        except BrokenPipeError:
            raise
        except BaseException as error:  # noqa: BLE001 - people's code
            failure = self._failure(message, error)
        close = getattr(result.body, "close", None)
        if close:
            close()
        self.streams.flush()
        self.send(StreamEnd(failure))

    def _cancelled(self) -> bool:
        """Whether the server asked to stop: while a call runs it sends nothing else."""
        if not select.select([self.channel], [], [], 0)[0]:
            return False
        data = self.channel.recv(_RECEIVE_BYTES)
        if not data:
            leave(0)
        return any(isinstance(message, Cancel) for message, _ in self.reader.feed(data))

    def send(self, message: Message, bodies: Iterable[bytes] = ()) -> None:
        body = b"".join(bodies)
        head = encode(message, len(body))
        if len(body) < _PART_BYTES:
            self.channel.sendall(head + body)
        else:
            self.channel.sendall(head)
            self.channel.sendall(body)


def _requests(calls: list[Call], body: bytes | bytearray) -> list[Request]:
    if len(calls) == 1:
        return [Request(calls[0].headers, body, calls[0].request_id)]
    pieces = split(memoryview(body), [call.length for call in calls])
    return [
        Request(call.headers, bytes(piece), call.request_id)
        for call, piece in zip(calls, pieces, strict=True)
    ]


def _streams(result: loader.Result) -> bool:
    return not isinstance(result, BaseException) and not isinstance(
        result.body, bytes | bytearray | memoryview | str
    )


def _parts(body: bytes | Iterator[bytes | str]) -> Iterator[bytes]:
    for part in [body] if isinstance(body, bytes) else body:
        if isinstance(part, str):
            part = part.encode()
        elif not isinstance(part, bytes | bytearray | memoryview):
            raise TypeError(f"a streamed answer yields bytes or str, not {type(part).__name__}")
        data = bytes(part)
        for start in range(0, len(data), _PART_BYTES):
            yield data[start : start + _PART_BYTES]


def _whole(body: bytes | Iterator[bytes | str]) -> bytes:
    return body if isinstance(body, bytes) else b"".join(_parts(body))


def _headers(result: loader.Result) -> Headers:
    assert not isinstance(result, BaseException)
    headers = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in result.headers
        if name.lower() not in _SERVERS_HEADERS
    ]
    if result.content_type is not None:
        headers.insert(0, (b"content-type", result.content_type.encode("latin-1")))
    return headers


def become(channel: int, log: int, environ: Mapping[str, str]) -> NoReturn:
    """Turn this fresh process into a worker with these two descriptors; never returns."""
    os.setsid()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(channel, CHANNEL)
    process.close_descriptors_except({0, 1, 2, CHANNEL})
    process.prefer_as_oom_victim()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    streams = output.install()
    logging.basicConfig(
        stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", level=logging.INFO, force=True
    )
    _set_threads(environ)
    code = 0
    try:
        Worker(socket.socket(fileno=CHANNEL), environ, streams).run()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server has gone
    except BaseException:  # noqa: BLE001 - the border of the process
        _log.exception("The worker's loop failed.")
        code = 70  # EX_SOFTWARE of sysexits.h
    leave(code)


def leave(code: int) -> NoReturn:
    """End without the interpreter's clean-up: descriptors of the template's objects are closed already."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            pass
    os._exit(code)


def _give_back() -> None:
    """Return freed memory to the kernel and the device; cheap, because what the template held is frozen."""
    gc.collect()
    process.trim_heap()
    if (torch := sys.modules.get("torch")) and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _set_threads(environ: Mapping[str, str]) -> None:
    """Apply the user's OMP_NUM_THREADS: the template was warmed up with one thread."""
    threads = int(environ.get("MMEKIT_WORKER_THREADS", "1"))
    for name in process.THREAD_VARIABLES:
        os.environ[name] = str(threads)
    if threads == 1:
        return
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
    try:
        import threadpoolctl
    except ImportError:
        return
    threadpoolctl.threadpool_limits(threads)


def main(argv: list[str]) -> None:
    """Run as ``python -m mmekit.worker.main CHANNEL LOG``, two descriptors."""
    process.die_with_parent(signal.SIGKILL)
    become(int(argv[0]), int(argv[1]), os.environ)


if __name__ == "__main__":
    main(sys.argv[1:])
