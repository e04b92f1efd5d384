"""The models that a server loads when it starts: SageMaker's one model, or those of MMS's ``load_models``."""

from __future__ import annotations

import asyncio
import logging

from mmekit.archive.startup import startup_models
from mmekit.config import Config
from mmekit.errors import MmekitError
from mmekit.server.model import Registration
from mmekit.server.registry import Registry

_log = logging.getLogger(__name__)

#: Name of the model in single-model mode, as sagemaker-inference starts it (``--models model=…``).
SINGLE_MODEL = "model"


class Startup:
    """Loads models at the start; ``done`` when the server is ready without them or has them."""

    def __init__(self, config: Config, registry: Registry, workers: int) -> None:
        self.config = config
        self.registry = registry
        #: For each model, when the settings say none (MMS: one for each GPU, else for each CPU).
        self.workers = workers
        self.done = not config.single_model and not config.load_models

    async def run(self) -> bool:
        """Load them, one after the other; return whether there is something to serve.

        Without the one model of single-model mode there is not; any other that fails is left out (MMS:
        ModelServer.java).
        """
        if self.config.single_model:
            self.done = await self._single()
            return self.done
        if self.config.load_models:
            for name, url in await asyncio.to_thread(
                startup_models, self.config.load_models, self.registry.store
            ):
                await self._load(name, url)
        self.done = True
        return True

    async def _single(self) -> bool:
        folder = self.config.model_dir
        try:
            await self.registry.load(Registration(SINGLE_MODEL, str(folder)), at_startup=True)
        except MmekitError as error:
            _log.critical("The model in %s cannot be loaded: %s", folder, error.message)
            return False
        return True

    async def _load(self, name: str, url: str) -> None:
        registration = Registration(name, url, initial_workers=self.config.copies or self.workers)
        try:
            await self.registry.load(registration, at_startup=True)
        except MmekitError as error:
            _log.warning("The server starts without the model %s (%s): %s", name or url, url, error.message)
        except Exception:  # noqa: BLE001 - the other models are to be served
            _log.exception("The server starts without the model %s (%s); it failed.", name or url, url)
