"""A running container for people's own tests: pytest's fixture ``mme_container`` (``plugin.py``)."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from mmekit.archive.unpack import unpack
from mmekit_toolkit.contract.sample import make_readable
from mmekit_toolkit.contract.subjects import ModelsFolder
from mmekit_toolkit.contract.wire import Answer, Deadline, Request, Server

#: Seconds that all calls of one test may take together.
_TEST_S = 600.0
#: What an archive may unpack to; the disk is the person's own.
_LARGEST_BYTES = 1 << 40


class LoadedModel:
    """A model that the container has loaded."""

    def __init__(self, server: Server, name: str, url: str) -> None:
        self.name = name
        #: Its folder as the container sees it.
        self.url = url
        self._server = server

    def invoke(
        self,
        body: bytes | str,
        content_type: str = "application/json",
        accept: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request as SageMaker does; return the answer, whatever its status.

        It has ``status``, ``headers`` (names in lower case), ``body`` and ``json``. Raises Unanswered when no
        complete answer comes within 60 s.
        """
        sent = {"Content-Type": content_type, "Accept": accept, **(headers or {})}
        return self._server.invoke(self.name, body.encode() if isinstance(body, str) else body, sent)

    def unload(self) -> Answer:
        """Unload it now; else that is done at the end of the test."""
        return self._server.unload(self.name)


class MmeContainer:
    """The container of the session, for one test; what the test has loaded is unloaded at its end."""

    def __init__(self, base_url: str, models: ModelsFolder) -> None:
        #: Its address, such as ``http://127.0.0.1:49153``.
        self.base_url = base_url
        self._models = models
        self._server = Server(base_url, Deadline(_TEST_S))
        self._folders: list[Path] = []
        self._loaded: list[LoadedModel] = []

    def load(self, source: str | os.PathLike[str], headers: Mapping[str, str] | None = None) -> LoadedModel:
        """Load a copy of a model's folder, or of its archive (.tar.gz), under a name as the platform gives.

        Raises AssertionError with the answer when it is not 200, InvalidModel for an archive
        that cannot be used, FileNotFoundError, Unanswered.
        """
        name = secrets.token_hex(16)
        folder = self._models.here / name
        self._folders.append(folder)
        _place(Path(source), folder / "model")
        model = LoadedModel(self._server, name, f"{self._models.there}/{name}/model")
        answer = self._server.load(name, model.url, headers)
        if answer.status != 200:
            raise AssertionError(f"the load of {source} was answered with {answer}\n  {answer.curl}")
        self._loaded.append(model)
        return model

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send any request; return the answer. Raises Unanswered."""
        return self._server.send(Request(method, path, headers or {}, body))

    @property
    def unanswered(self) -> bool:
        """Whether a request of this test got no complete answer."""
        return self._server.transcript.unanswered

    def close(self) -> None:
        """Unload what the test has loaded, and remove its copies."""
        self._server = Server(self.base_url, Deadline(_TEST_S))
        try:
            for model in self._loaded:
                self._server.unload(model.name)
        finally:
            for folder in self._folders:
                shutil.rmtree(folder, ignore_errors=True)


def _place(source: Path, folder: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, folder)
    else:
        folder.parent.mkdir()
        unpack(source, str(source), folder, _LARGEST_BYTES)
    make_readable(folder.parent)
