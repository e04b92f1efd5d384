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
from mmekit.lines import LevelFormatter
from mmekit.worker import failures, forking, loader, mms_modules, output
from mmekit.worker.context import Request
from mmekit.worker.messages import (
    Answer,
    Call,
    Cancel,
    Clone,
    CloneReady,
    Failure,
    Forked,
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
from mmekit.worker.metrics import MetricsStore, reported

_log = logging.getLogger(__name__)

#: Where a worker finds its channel to the server.
CHANNEL = 3

#: Received at once; larger buffers are slower for the usual small frames (hotpath study, section 2).
_RECEIVE_BYTES = 65536

#: A streamed part is cut into frames of at most this, so that the server's loop is never held long.
_PART_BYTES = 256 * 1024

#: Headers that the server writes; what a handler sets them to is dropped, as MMS overwrites it.
_SERVERS_HEADERS = frozenset(
    {
        "cache-control",
        "connection",
        "content-length",
        "date",
        "expires",
        "pragma",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-request-id",
    }
)


#: Bodies that are not streamed. A tuple made once: a union in a call is made anew each time.
_WHOLE = (bytes, bytearray, memoryview, str)


class Worker:
    """Holds models by name and answers the server's messages, one after the other."""

    def __init__(self, channel: socket.socket, environ: Mapping[str, str], streams: output.Streams) -> None:
        self.channel = channel
        self.environ = environ
        self.streams = streams
        #: Whether the time of each call is reported: a metric of MMS's log.
        self.times_calls = environ.get("MMEKIT_LOG_FORMAT") == "mms"
        self.models: dict[str, loader.LoadedModel] = {}
        self.reader = FrameReader()
        #: What was raised in the call that runs; of a batch it may be one for several requests.
        self.failed: list[BaseException] = []

    def run(self) -> None:
        """Serve until the server closes the channel."""
        self.send(Started(os.getpid(), process.anonymous_bytes()))
        while data := self.channel.recv(_RECEIVE_BYTES):
            for message, body in self.reader.feed(data):
                self.dispatch(message, body)

    def dispatch(self, message: Message, body: bytes | bytearray) -> None:
        if isinstance(message, Invoke):
            self.streams.model, self.streams.calls = message.model, message.calls
            self.invoke(message, body)
        elif isinstance(message, Load):
            self.load(message)
        elif isinstance(message, Unload):
            self.unload(message)
        elif isinstance(message, Clone):
            self.clone(message)
        elif not isinstance(message, Cancel):  # a Cancel that crossed the end of its stream
            raise TypeError(f"the server sent {type(message).__name__}, which is not for workers")
        if reported:
            self.report()
        if self.failed:
            self._let_go()
        self.streams.calls = ()

    # --- loads -----------------------------------------------------------------------------

    def load(self, message: Load) -> None:
        loader.import_built_in(message)  # the image's share, not the model's: before the grant counts
        before = process.anonymous_bytes()
        process.reset_peak()
        resident = process.status_bytes("VmRSS")
        started = time.monotonic()
        self.streams.model = message.model
        self.streams.targets[message.model] = message.target_model
        reply: Message
        try:
            self._limit(message.grant_bytes)
            if message.chdir:
                os.chdir(message.path)
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
            self.streams.targets.pop(message.model)
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
        self.streams.targets.pop(message.model, None)
        self.send(Unloaded(message.model))

    # --- copies ----------------------------------------------------------------------------

    def clone(self, message: Clone) -> None:
        """Fork a worker that holds the model too; there this returns as well, to a channel of its own."""
        self.streams.model = message.model
        refusal = "its worker holds other models" if self.models.keys() - {message.model} else None
        if refusal := refusal or forking.obstacle():
            self.send(Forked(0, refusal, unsafe=True))
            return
        self.streams.flush()
        _give_back()
        gc.freeze()  # else the first full collection of either process copies what they share
        self.send(CloneReady())
        data, descriptors, _, _ = socket.recv_fds(self.channel, _RECEIVE_BYTES, 2)
        if not data:
            leave(0)
        if len(descriptors) != 2:
            self.send(Forked(0, "the server has given it up"))
            return
        error, is_clone = forking.fork_worker(os.getppid())
        if is_clone:
            forking.reseed()
            _connect(*descriptors)
            self.reader = FrameReader()
        for descriptor in descriptors:
            os.close(descriptor)
        self.send(Started(os.getpid(), process.anonymous_bytes()) if is_clone else Forked(0, error))

    # --- calls -----------------------------------------------------------------------------

    def invoke(self, message: Invoke, body: bytes | bytearray) -> None:
        requests = _requests(message.calls, body)
        started = time.perf_counter()
        results = self._predict(message, requests)
        if self.times_calls:
            self._note_time(message, time.perf_counter() - started)
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

    def _note_time(self, message: Invoke, seconds: float) -> None:
        """Report how long a call took, as MMS does for each (MMS: service.py)."""
        ids = {index: call.request_id for index, call in enumerate(message.calls)}
        store = MetricsStore(ids, message.model)
        store.add_time("PredictionTime", round(seconds * 1000, 2))
        reported.append(store)

    def report(self) -> None:
        """Send what was reported to ``context.metrics``, after the answer."""
        for store in reported:
            try:
                self.streams.report(store.store)
            except Exception:  # noqa: BLE001 - people may report anything, and put in place any store
                _log.exception("What the handler reported to context.metrics cannot be logged.")
        reported.clear()

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
                self._check_size(message.model, len(body))
                return Reply(result.status, _headers(result), len(body), None, result.reason), body, False
            except BaseException as error:  # noqa: BLE001 - a generator is people's code too
                result = error
        failure = self._failure(message, result)
        return Reply(failure.status, [], 0, failure), b"", bool(getattr(result, "fatal", False))

    def _failure(self, message: Invoke, error: BaseException) -> Failure:
        model = self.models.get(message.model)
        failure = failures.failure_of(error, model.code_dirs if model else [], "invoke")
        failures.log_failure(error, message.model, failure)
        self.failed.append(error)
        return failure

    def _let_go(self) -> None:
        for error in self.failed:
            failures.let_go(error)
        self.failed.clear()

    def _check_size(self, model: str, size: int) -> None:
        """Raises ``PredictionFailed`` for an answer that is larger than the model's may be."""
        limit = self.models[model].max_response_bytes
        if limit is not None and size > limit:
            raise PredictionFailed(
                f"The answer has {size} bytes; max_response_size allows {limit} "
                "(config.properties, or SAGEMAKER_MAX_RESPONSE_SIZE)."
            )

    # --- streamed answers --------------------------------------------------------------------

    def _stream(self, message: Invoke, result: loader.Result) -> None:
        assert not isinstance(result, BaseException)
        failure = None
        started = False
        size = 0
        try:
            for part in _parts(result.body):
                size += len(part)
                self._check_size(message.model, size)
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
        return [Request(calls[0].headers, body, calls[0].request_id, calls[0].query)]
    pieces = split(memoryview(body), [call.length for call in calls])
    return [
        Request(call.headers, bytes(piece), call.request_id, call.query)
        for call, piece in zip(calls, pieces, strict=True)
    ]


def _streams(result: loader.Result) -> bool:
    return not isinstance(result, BaseException) and not isinstance(result.body, _WHOLE)


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
    _connect(channel, log)
    process.close_descriptors_except({0, 1, 2, CHANNEL})
    process.prefer_as_oom_victim()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    streams = output.install()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LevelFormatter("%(name)s: %(message)s"))
    level = int(environ.get("MMEKIT_WORKER_LOG_LEVEL", logging.INFO))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    _set_threads(environ)
    mms_modules.install()
    code = 0
    try:
        Worker(socket.socket(fileno=CHANNEL), environ, streams).run()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server has gone
    except BaseException:  # noqa: BLE001 - the border of the process
        _log.exception("The worker's loop failed.")
        code = 70  # EX_SOFTWARE of sysexits.h
    leave(code)


def _connect(channel: int, log: int) -> None:
    """Give this process a session of its own and put these two descriptors where a worker has them."""
    os.setsid()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(channel, CHANNEL)


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
