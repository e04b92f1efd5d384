"""The model that the server is checked with: the kit's own, or one of the person's, and one request to it."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from mmekit_toolkit.contract import probe
from mmekit_toolkit.contract.wire import Answer
from mmekit_toolkit.errors import ToolkitError


class Sample(ABC):
    """Makes folders of one kind of model, and knows a request that it answers."""

    #: What is sent to it in most clauses.
    body: bytes
    headers: Mapping[str, str]

    @abstractmethod
    def prepare(self, models: Path) -> None:
        """Get ready to make models below a folder."""

    @abstractmethod
    def write(self, folder: Path, identity: str) -> None:
        """Make a model in an empty folder that is there."""

    @abstractmethod
    def write_broken(self, folder: Path) -> None:
        """Make one that no server can load."""

    @abstractmethod
    def fault(self, answer: Answer, identity: str) -> str:
        """Return what was expected of the answer to the request, "" when it is right."""

    @property
    @abstractmethod
    def broken_means(self) -> str:
        """How the broken model is broken, for reports."""


class ProbeSample(Sample):
    """The kit's own model; see ``probe``."""

    body = probe.facts()
    headers = MappingProxyType({"Content-Type": "application/json", "Accept": "application/json"})
    broken_means = "a model whose handler raises RuntimeError when it is loaded"

    def prepare(self, models: Path) -> None:
        """Do nothing: each folder is small."""

    def write(self, folder: Path, identity: str, hold_mib: int = 0) -> None:
        """Make a model that holds so much memory."""
        probe.write(folder, identity, hold_mib)

    def write_broken(self, folder: Path) -> None:
        """Make one that raises."""
        probe.write(folder, "broken", broken="broken on purpose, by mmekit contract")

    def fault(self, answer: Answer, identity: str) -> str:
        """Return "" when that very model has answered, and had the whole request."""
        facts = answer.json
        if answer.status != 200 or not isinstance(facts, dict):
            return "200 with the facts of the kit's model, a JSON object"
        if facts.get("identity") != identity:
            return f"an answer of the model {identity!r}, as its member `identity` tells"
        return ""


class OwnSample(Sample):
    """A model of the person's, with a request that it answers with 2xx."""

    broken_means = "a copy of the model whose files all have other bytes"

    def __init__(self, source: Path, body: bytes, headers: Mapping[str, str]) -> None:
        self.body = body
        self.headers = headers
        self._source = source
        self._copied = False

    def prepare(self, models: Path) -> None:
        """Copy the model once; further copies are links to that one, so that hundreds take no room.

        The person's own files are out of the server's reach: one that writes to its models changes copies.
        """
        if not self._copied:
            copy = models / ".sample"
            try:
                shutil.copytree(self._source, copy)
            except shutil.Error as error:
                path, _, why = error.args[0][0]
                raise ToolkitError(f"{path} of the model's folder cannot be copied: {why}.") from error
            make_readable(copy)
            self._source, self._copied = copy, True

    def write(self, folder: Path, identity: str) -> None:
        """Link the files of the copy, or copy them again where the file system has no links."""
        shutil.copytree(self._source, folder, copy_function=_link_or_copy, dirs_exist_ok=True)

    def write_broken(self, folder: Path) -> None:
        """Make a folder of the same files with garbage in each."""
        for path in sorted(self._source.rglob("*")):
            target = folder / path.relative_to(self._source)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                target.write_bytes(b"\x00\xffnothing that a model could be\xff\x00" * 8)

    def fault(self, answer: Answer, identity: str) -> str:
        """Return "" for 2xx; copies of one model cannot be told apart."""
        return "" if answer.ok else "2xx: the model's answer to the given payload"


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
        return target
    except OSError:
        return str(shutil.copy2(source, target))


def make_readable(folder: Path) -> None:
    """Let every user of a container read what is in a folder, whatever this process's umask is."""
    for path in [folder, *folder.rglob("*")]:
        mode = path.stat().st_mode
        wanted = mode | (0o555 if path.is_dir() else 0o444)
        if wanted != mode:
            path.chmod(wanted)
