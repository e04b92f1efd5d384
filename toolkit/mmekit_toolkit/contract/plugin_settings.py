"""What a session of pytest says about the run of the kit: options, else lines of its configuration file."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from mmekit_toolkit.contract.clause import Clause
from mmekit_toolkit.contract.clauses import CLAUSES
from mmekit_toolkit.contract.plugin_names import names
from mmekit_toolkit.contract.runner import START_TIMEOUT_S


class Settings:
    """An option of the command line wins over a line of the file. Raises pytest.UsageError."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.target, self.command = self._subject()
        self.environment = dict(self._variable(text) for text in self._texts("-env"))
        self.model = self._path("-model")
        self.payload = self._path("-payload")
        if (self.model is None) != (self.payload is None):
            raise pytest.UsageError(
                "--mme-contract-model and --mme-contract-payload go together: a model and a request to it"
            )
        self.content_type = self._text("-content-type")
        self.accept = self._text("-accept")
        self.models_dir = self._text("-models-dir")
        self.platform = self._text("-platform")
        self.start_timeout_s = self._seconds("-start-timeout", START_TIMEOUT_S)
        self.clauses = self._clauses(self._texts("-clause"))

    @property
    def subject(self) -> str:
        """The subject as it was named."""
        return self.target or shlex.join(self.command)

    def _subject(self) -> tuple[str | None, list[str]]:
        """Return the image or URL, or the command; what the command line names replaces the file's."""
        options = [self._config.getoption(names(name)[0]) for name in ("", "-command")]
        lines = [self._config.getini(names(name)[1]) for name in ("", "-command")]
        target, command = options if any(options) else lines
        if target and command:
            raise pytest.UsageError("mme-contract: expected an image or URL, or a command; both came")
        return target or None, shlex.split(command or "")

    def _text(self, name: str) -> str | None:
        option, line = names(name)
        return self._config.getoption(option) or self._config.getini(line) or None

    def _texts(self, name: str) -> list[str]:
        option, line = names(name)
        return list(self._config.getoption(option) or self._config.getini(line))

    def _path(self, name: str) -> Path | None:
        """Return a path: an option's from the current folder, a line's from the file's."""
        option, line = names(name)
        if text := self._config.getoption(option):
            return Path(self._config.invocation_params.dir, text)
        text = str(self._config.getini(line))
        beside = self._config.inipath.parent if self._config.inipath else self._config.rootpath
        return Path(beside, text) if text else None

    def _seconds(self, name: str, otherwise: float) -> float:
        text = self._text(name)
        try:
            seconds = otherwise if text is None else float(text)
        except ValueError:
            seconds = 0.0
        if not seconds > 0:
            raise pytest.UsageError(f"{names(name)[0]}: expected seconds, more than 0; {text} came")
        return seconds

    def _variable(self, text: str) -> tuple[str, str]:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise pytest.UsageError(f"{names('-env')[0]}: expected NAME=VALUE; {text} came")
        return name, value

    def _clauses(self, chosen: list[str]) -> list[Clause]:
        known = {clause.name for clause in CLAUSES}
        for name in chosen:
            if name not in known:
                raise pytest.UsageError(
                    f"{names('-clause')[0]}: there is no clause {name}; `mmekit contract --list` lists them"
                )
        return [clause for clause in CLAUSES if not chosen or clause.name in chosen]
