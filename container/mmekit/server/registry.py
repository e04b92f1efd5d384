"""The models by name: load, unload, list, describe. One load a name; a failed load leaves no trace."""

from __future__ import annotations

import asyncio
import base64
import binascii
import dataclasses
import logging
import time
from dataclasses import dataclass
from typing import Any

from mmekit import artifact, choice, process, requirements
from mmekit.archive.store import ModelStore, is_download
from mmekit.config import Config, setting_of
from mmekit.errors import (
    BadRequest,
    Conflict,
    InvalidModel,
    MmekitError,
    ModelNotFound,
    ServiceUnavailable,
)
from mmekit.needs import Subject, sizes_by_suffix
from mmekit.server.copies import Copies
from mmekit.server.dispatcher import Dispatcher
from mmekit.server.model import Facts, Model, Registration, Scaling, State, check_name
from mmekit.server.placement import Kind, Needs
from mmekit.server.queues import ModelQueue, ServerQueue
from mmekit.server.residency import Residency
from mmekit.server.threads import Threads
from mmekit.server.workers import Worker
from mmekit.worker.messages import Load

_log = logging.getLogger(__name__)

#: MMS: ManagementRequestHandler; its default and its largest page.
PAGE_SIZE = 100

#: Models that are downloaded at once, and those that are looked up and unpacked at once.
_DOWNLOADS = 16
_READS = 8

#: Built-in handlers whose models live on a GPU when there is one.
_DEVICE_RUNTIMES = frozenset({"mmekit_handlers.pytorch:PyTorchHandler"})


@dataclass(frozen=True)
class Loading:
    """How far a model is after a request: ``done`` when as many workers hold it as it asked for.

    ``superseded``: another request asked for another number meanwhile.
    """

    model: Model
    done: bool
    superseded: bool = False


class Registry:
    """Owns every Model; ``models`` is shared with the dispatcher, which only reads it."""

    def __init__(
        self,
        config: Config,
        models: dict[str, Model],
        dispatcher: Dispatcher,
        residency: Residency,
        copies: Copies,
        store: ModelStore,
        environ_image: choice.ImageCode,
    ) -> None:
        self.config = config
        self.models = models
        self.dispatcher = dispatcher
        self.residency = residency
        self.copies = copies
        self.store = store
        self.image = environ_image
        self.waiting = ServerQueue(config.server_queue_size)
        #: A slow site holds no other load up.
        self.downloads = Threads(_DOWNLOADS)
        self.reads = Threads(_READS)
        self.stopping = False

    # --- load --------------------------------------------------------------------------------

    async def load(self, registration: Registration, at_startup: bool = False) -> Loading:
        """Do and raise what ``_load`` does, and count it."""
        statistics = self.dispatcher.statistics
        try:
            loading = await self._load(registration, at_startup)
        except MmekitError as error:
            statistics.loads[error.status] += 1
            raise
        statistics.registered(loading.model.name)
        return loading

    async def _load(self, registration: Registration, at_startup: bool) -> Loading:
        """Register a model; when it is asked to wait, return when it can be invoked (contract 1.3, 2.5).

        Raises Conflict when the name is taken, also by a load that still runs; ModelNotFound,
        InvalidModel, ModelLoadError when it cannot be loaded; OutOfResources when unloading other
        models would help. After an error the name is free again. What is loaded in the background
        stays, and requests get its error.
        """
        model = self._reserved(registration, at_startup) if registration.name else None
        folder = None
        try:
            threads = self.downloads if is_download(registration.url) else self.reads
            folder = await threads.run(self.store.open, registration.url)
            found = await asyncio.to_thread(artifact.inspect, folder.path, self.config.program)
            if model is None:
                name = _manifest_name(found, registration.url)
                model = self._reserved(dataclasses.replace(registration, name=name), at_startup)
            model.folder = folder
            model.facts = Facts(found.model_version, found.engine, registration.runtime or found.runtime_name)
            await asyncio.to_thread(self._choose, model, found)
            self.copies.bound(model)
            if not registration.synchronous:
                model.state = State.READY
                self.copies.ask(model, model.min_copies, model.max_copies)
                return Loading(model, done=False)
            await self.copies.fill(model)
        except BaseException as error:
            if model is not None:
                await self._remove(model)
            if folder is not None:
                await asyncio.to_thread(folder.close)
                if isinstance(error, MmekitError):
                    error.args = (folder.named(error.message, registration.url), *error.args[1:])
            name = model.name if model else registration.url
            _log.warning(
                "Load of %s failed: %s",
                name,
                "the server is stopping." if isinstance(error, asyncio.CancelledError) else error,
                extra={"model": name, "target": registration.target_model},
            )
            raise
        model.state = State.READY
        model.loaded_at = time.time()
        _log.info(
            "%s %s from %s in %.1f ms.",
            "Loaded" if model.workers else "Registered",
            model.name,
            registration.url,
            model.load_ms,
            extra={"model": model.name, "target": registration.target_model},
        )
        return Loading(model, done=True)

    def _reserved(self, registration: Registration, at_startup: bool) -> Model:
        """Take the name for a model that is being loaded. Raises Conflict, ServiceUnavailable."""
        name = registration.name
        if self.stopping:
            raise ServiceUnavailable("The server is stopping and loads no more models.", None)
        if taken := self.models.get(name):
            raise Conflict(f"Model {name} is already registered{_how(taken)}.")
        asked = registration.initial_workers
        minimum = self.config.copies if asked is None else asked
        model = Model(
            registration,
            ModelQueue(name, self.config.queue_size, self.waiting),
            registration.response_timeout_s or self.config.invoke_timeout_s,
            min_copies=minimum,
            max_copies=max(minimum, self.config.max_copies) if asked is None else minimum,
            at_startup=at_startup,
            preload=self.config.preload_model if registration.preload is None else registration.preload,
        )
        self.models[name] = model
        return model

    def _choose(self, model: Model, found: artifact.Artifact) -> None:
        """Decide what runs a model; in a thread, because it walks files."""
        registration = model.registration
        chosen = choice.choose(found, registration.handler, self.image)
        requirements.check(found)
        model.shadows = chosen.shadows
        model.fingerprint = artifact.fingerprint(found.path)
        model.subject = Subject(found.path, chosen.runtime, chosen.own_code, sizes_by_suffix(found.path))
        on_device = chosen.own_code or chosen.runtime in _DEVICE_RUNTIMES
        model.needs = Needs(chosen.own_code, found.size_bytes, on_device)
        model.load = Load(
            model=registration.name,
            path=found.path,
            handler=chosen.handler,
            program=chosen.program,
            runtime=chosen.runtime,
            code_dirs=list(chosen.code_dirs),
            batch_size=registration.batch_size,
            gpu_id=None,
            grant_bytes=None,
            target_model=registration.target_model,
            manifest=found.manifest_text,
            decode=self.config.decode_input_request,
            max_response_bytes=self.config.max_response_bytes,
        )

    # --- scale -------------------------------------------------------------------------------

    async def scale(self, name: str, scaling: Scaling) -> Loading:
        """Change how many workers hold a model (contract 2.6); the last who asks wins.

        Raises ModelNotFound when it is not loaded, or is unloaded meanwhile; what ``Copies.scale`` does.
        """
        model = self.get(name)
        minimum, maximum = scaling.min_workers, scaling.max_workers
        _log.info("Model %s is to have %d to %d workers.", name, minimum, maximum, extra={"model": name})
        if not scaling.synchronous:
            self.copies.ask(model, minimum, maximum)
            return Loading(model, done=False)
        done = await self.copies.scale(model, minimum, maximum)
        return Loading(model, done, superseded=not done)

    # --- unload ------------------------------------------------------------------------------

    async def unload(self, name: str) -> None:
        """Take a model out; returns when its memory is free (contract 1.3).

        Requests it already has are answered first and its loads come to their end, for at most
        ``unregister_timeout_s``; new ones get ModelNotFound at once. Raises ModelNotFound when it is not
        loaded.
        """
        model = self.get(name)
        model.state = State.UNLOADING
        self.copies.forget(model)
        try:
            await asyncio.wait_for(_at_rest(model), self.config.unregister_timeout_s)
        except asyncio.TimeoutError:
            _log.warning("Unload of %s ends its calls and loads.", name, extra={"model": name})
            await self.residency.end_calls(model, _ended(name, self.config.unregister_timeout_s))
        finally:
            await asyncio.shield(self._remove(model))
        self.dispatcher.statistics.unloads += 1
        _log.info("Unloaded %s.", name, extra={"model": name})

    async def _remove(self, model: Model) -> None:
        await self.residency.remove(model)
        self.models.pop(model.name, None)
        if model.folder is not None:
            await asyncio.to_thread(model.folder.close)

    # --- reading -----------------------------------------------------------------------------

    def get(self, name: str) -> Model:
        """Return a ready model. Raises ModelNotFound."""
        model = self.models.get(name)
        if model is None or model.state is not State.READY:
            raise ModelNotFound(f"Model not found: {name}{_how(model) if model else ''}")
        return model

    def page(self, token: str | None, limit: str | None) -> tuple[list[Model], str | None]:
        """Return ready models by name and the token of the next page, None at the end.

        The token holds the last name of its page, so loads and unloads between two pages make no
        model appear twice or vanish. A plain number is taken as MMS's token, an offset. A limit
        that is no number from 1 to 100 means 100 (MMS: ManagementRequestHandler).
        """
        size = _whole(limit)
        if not 0 < size <= PAGE_SIZE:
            size = PAGE_SIZE
        names = sorted(name for name, model in self.models.items() if model.state is State.READY)
        rest = names[_start(names, token) :]
        next_token = _token(rest[size - 1]) if len(rest) > size else None
        return [self.models[name] for name in rest[:size]], next_token

    def describe(self, model: Model) -> dict[str, Any]:
        """Return what ``GET /models/{name}`` answers: the contract's two fields and MMS's (contract 2.7)."""
        fields = {
            "modelName": model.name,
            "modelVersion": model.facts.version,
            "modelUrl": model.registration.url,
            "engine": model.facts.engine,
            "runtime": model.facts.runtime,
            "minWorkers": model.min_copies,
            "maxWorkers": model.max_copies,
            "batchSize": model.registration.batch_size,
            "maxBatchDelay": model.registration.max_batch_delay_ms,
            "loadedAtStartup": model.at_startup,
            "workers": [
                *(_described(model, worker, "READY") for worker in model.workers),
                *(_described(model, worker, "UNLOADING") for worker in model.leaving),
            ],
        }
        return {name: value for name, value in fields.items() if value is not None}


def _described(model: Model, worker: Worker, status: str) -> dict[str, Any]:
    """Describe a worker; its memory is that of the model in it, in bytes."""
    started_s, started_ms = divmod(int(worker.started_at * 1000), 1000)
    if worker.kind is Kind.OWN:
        used = max(0, process.anonymous_bytes(worker.pid) - worker.baseline_bytes)
    else:
        used = model.cost_bytes
    return {
        "id": f"{worker.number}-{worker.pid}",
        "startTime": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(started_s)) + f".{started_ms:03}Z",
        "status": status,
        "gpu": worker.gpu_id is not None,
        "memoryUsage": used,
    }


def _manifest_name(found: artifact.Artifact, url: str) -> str:
    """Return the name in a manifest. Raises InvalidModel without one."""
    if not found.model_name:
        there = "found none" if found.manifest_text is None else f"found {found.manifest_text:.200}"
        raise InvalidModel(
            f"Model name is not defined. Expected the parameter model_name, or modelName in a manifest "
            f"(MAR-INF/MANIFEST.json) of {url}, {there}."
        )
    check_name(found.model_name)
    return found.model_name


async def _at_rest(model: Model) -> None:
    """Wait until a model that is unloaded has answered its requests and is in no load."""
    if model.queue or model.running:
        await model.drained.wait()
    while tasks := model.loads():
        await asyncio.wait(tasks)


def _ended(name: str, timeout_s: float) -> MmekitError:
    # Not WorkerDied: that is tried again, and counted against the model.
    return MmekitError(
        f"Worker died. Model {name} was unloaded and the calls it had were not answered within "
        f"{timeout_s:g} s ({setting_of('unregister_timeout_s').names[0]})."
    )


def _how(model: Model) -> str:
    if model.state is State.READY:
        return ""
    return f" (it is {model.state.value} at the moment)"


def _whole(text: str | None) -> int:
    """Return a whole number, cut at a million (longer ones cost more than they say); -1 for other texts."""
    if not text or not text.isascii() or not text.isdigit():
        return -1
    return int(text) if len(text) < 7 else 1_000_000


def _token(name: str) -> str:
    return "after-" + base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _start(names: list[str], token: str | None) -> int:
    """Return the index a page starts at. Raises BadRequest for a token no page ever gave."""
    if not token:
        return 0
    if (offset := _whole(token)) >= 0:
        return offset
    try:
        if not token.startswith("after-"):
            raise ValueError
        encoded = token.removeprefix("after-")
        last = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        raise BadRequest(
            f"next_page_token {token[:80]!r} is not one: expected the nextPageToken of the page before."
        ) from None
    return next((index for index, name in enumerate(names) if name > last), len(names))
