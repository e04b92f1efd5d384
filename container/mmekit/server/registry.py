"""The models by name: load, unload, list, describe. One load a name; a failed load leaves no trace."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
from typing import Any

from mmekit import artifact, choice, requirements
from mmekit.config import Config
from mmekit.errors import BadRequest, Conflict, ModelNotFound, ServiceUnavailable
from mmekit.server.dispatcher import Dispatcher
from mmekit.server.estimates import Subject, sizes_by_suffix
from mmekit.server.model import Model, Registration, State
from mmekit.server.placement import Needs
from mmekit.server.queues import ModelQueue, ServerQueue
from mmekit.server.residency import Residency
from mmekit.worker.messages import Load

_log = logging.getLogger(__name__)

#: MMS: ManagementRequestHandler; its default and its largest page.
PAGE_SIZE = 100

#: Built-in handlers whose models live on a GPU when there is one.
_DEVICE_RUNTIMES = frozenset({"mmekit_handlers.pytorch:PyTorchHandler"})


class Registry:
    """Owns every Model; ``models`` is shared with the dispatcher, which only reads it."""

    def __init__(
        self,
        config: Config,
        models: dict[str, Model],
        dispatcher: Dispatcher,
        residency: Residency,
        environ_image: choice.ImageCode,
    ) -> None:
        self.config = config
        self.models = models
        self.dispatcher = dispatcher
        self.residency = residency
        self.image = environ_image
        self.waiting = ServerQueue(config.server_queue_size)
        self.stopping = False

    # --- load --------------------------------------------------------------------------------

    async def load(self, registration: Registration) -> Model:
        """Load a model and return when it can be invoked (contract 1.3).

        Raises Conflict when the name is taken, also by a load that still runs; ModelNotFound,
        InvalidModel, ModelLoadError when it cannot be loaded; OutOfResources when unloading other
        models would help. After an error the name is free again.
        """
        name = registration.name
        if self.stopping:
            raise ServiceUnavailable("The server is stopping and loads no more models.", None)
        if taken := self.models.get(name):
            raise Conflict(f"Model {name} is already registered{_how(taken)}.")
        model = Model(
            registration,
            ModelQueue(name, self.config.queue_size, self.waiting),
            registration.response_timeout_s or self.config.invoke_timeout_s,
            registration.initial_workers or self.config.copies,
        )
        self.models[name] = model
        try:
            await asyncio.to_thread(self._inspect, model)
            await self.residency.bring(model)
            while len(model.workers) < model.min_copies:
                await self.residency.bring(model)
        except BaseException as error:
            await self.residency.remove(model)
            del self.models[name]
            _log.warning(
                "Load of %s failed: %s",
                name,
                error,
                extra={"model": name, "target": registration.target_model},
            )
            raise
        model.state = State.READY
        model.loaded_at = time.time()
        _log.info(
            "Loaded %s from %s in %.1f ms.",
            name,
            registration.url,
            model.load_ms,
            extra={"model": name, "target": registration.target_model},
        )
        return model

    def _inspect(self, model: Model) -> None:
        """Look at the folder and decide what runs it; in a thread, because it walks files."""
        registration = model.registration
        found = artifact.inspect(registration.url, self.config.program)
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
            manifest=found.manifest,
        )

    # --- unload ------------------------------------------------------------------------------

    async def unload(self, name: str) -> None:
        """Take a model out; returns when its memory is free (contract 1.3).

        Requests it already has are answered first; new ones get ModelNotFound at once.
        Raises ModelNotFound when it is not loaded.
        """
        model = self.get(name)
        model.state = State.UNLOADING
        try:
            if model.queue or model.running:
                await model.drained.wait()
        finally:
            await asyncio.shield(self._remove(model))
        _log.info("Unloaded %s.", name, extra={"model": name})

    async def _remove(self, model: Model) -> None:
        await self.residency.remove(model)
        self.models.pop(model.name, None)

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
        """Return what ``GET /models/{name}`` answers: the contract's two fields and MMS's."""
        return {
            "modelName": model.name,
            "modelUrl": model.registration.url,
            "runtime": "python",
            "minWorkers": model.min_copies,
            "maxWorkers": max(model.min_copies, self.config.max_copies),
            "batchSize": model.registration.batch_size,
            "maxBatchDelay": model.registration.max_batch_delay_ms,
            "loadedAtStartup": not self.config.multi_model,
            "workers": [
                {
                    "id": str(worker.number),
                    "startTime": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(worker.started_at)),
                    "status": "READY",
                    "gpu": worker.gpu_id is not None,
                    "memoryUsage": model.cost_bytes,
                }
                for worker in model.workers
            ],
        }


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
