"""Whether an image meets a model's requirements.txt; nothing is installed.

Reads pip's format (pip: "Requirements File Format"). Lines are compared with the distributions of an
``Environment``, by default this one; what says where to install from has no meaning here.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from mmekit.artifact import Artifact
from mmekit.errors import InvalidModel, ModelLoadError

_log = logging.getLogger(__name__)

#: Distributions that offer the same package under another name.
_SAME_PACKAGE = {"xgboost": "xgboost-cpu", "xgboost-cpu": "xgboost", "sklearn": "scikit-learn"}
#: Files that include each other are not followed further.
_MAX_DEPTH = 8
#: pip strips comments that stand at the start or after white space.
_COMMENT = re.compile(r"(^|\s+)#.*$")
_LINE_OPTION = re.compile(r"\s+--(hash|config-settings|global-option)\b.*$")
#: A path, an archive or a URL instead of a name.
_LOCATION = re.compile(r"[./]|[^\s@]+\.(whl|zip|tar\.gz)$|[a-z+]+:")
_EGG = re.compile(r"#(?:.*&)?egg=([A-Za-z0-9._-]+)")


@dataclass(frozen=True)
class Distribution:
    """What is installed under one name; ``requires`` are lines of its metadata."""

    name: str
    version: str
    requires: tuple[str, ...] = ()


class Environment:
    """Where a model would run: this interpreter and its distributions. Others override both."""

    #: What markers are evaluated with, where it differs from this interpreter's (PEP 508).
    markers: Mapping[str, str] = {}

    def distribution(self, name: str) -> Distribution | None:
        """Return what is installed under a name, None when nothing is."""
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            return None
        return Distribution(found.metadata["Name"], found.version, tuple(found.requires or ()))


def check(artifact: Artifact) -> None:
    """Raise ``ModelLoadError`` when the image does not meet the requirements of a model."""
    if artifact.requirements_file is None:
        return
    if sentences := unmet(artifact.requirements_file):
        file = os.path.relpath(artifact.requirements_file, artifact.path)
        raise ModelLoadError(
            f"This image does not meet {file}: {'; '.join(sentences)}. Install it in the image or change the "
            "file: environments of a model's own are not supported yet."
        )


def unmet(file: str | os.PathLike[str], environment: Environment | None = None) -> list[str]:
    """Return a sentence for each requirement in a file that is not met, by default in this environment.

    Constraints (``-c``) apply to what the file requires. Raises ``InvalidModel`` for a line that is no
    requirement, or an included file that is not there.
    """
    environment = environment or Environment()
    path = Path(file)
    required = list(_requirements(path, "-r"))
    names = {canonicalize_name(requirement.name) for requirement in required}
    constraints = [each for each in _requirements(path, "-c") if canonicalize_name(each.name) in names]
    return [sentence for each in (*required, *constraints) if (sentence := _why_unmet(each, environment))]


def _why_unmet(requirement: Requirement, environment: Environment, extra: str = "") -> str | None:
    if requirement.marker and not requirement.marker.evaluate({**environment.markers, "extra": extra}):
        return None
    distribution = _installed(requirement.name, environment)
    if distribution is None:
        return f"{requirement} is not installed"
    installed = f"{distribution.name} {distribution.version}"
    if requirement.url:
        _log.warning("%s comes from a URL; the installed %s is used.", requirement.name, installed)
        return None
    try:
        version = Version(distribution.version)
    except InvalidVersion:
        return f"{requirement} cannot be compared with the installed {installed}"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement} is required, {installed} is installed"
    return _unmet_extra(requirement, distribution, environment)


def _unmet_extra(
    requirement: Requirement, distribution: Distribution, environment: Environment
) -> str | None:
    """Check what ``package[extra]`` adds; one level, as that is where a missing one is seen."""
    for extra in requirement.extras:
        for line in distribution.requires:
            added = Requirement(line)
            if added.marker is None or "extra" not in str(added.marker):
                continue
            if sentence := _why_unmet(added, environment, extra):
                return f"{requirement}: {sentence}"
    return None


def _installed(name: str, environment: Environment) -> Distribution | None:
    found = environment.distribution(name)
    other = _SAME_PACKAGE.get(canonicalize_name(name))
    return environment.distribution(other) if found is None and other else found


def _requirements(path: Path, kind: str, depth: int = 0) -> Iterator[Requirement]:
    """Yield what ``path`` and the files it includes require (kind ``-r``) or only constrain (``-c``)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InvalidModel(f"requirements.txt includes {path}, which is not there.") from None
    except UnicodeDecodeError:
        raise InvalidModel(f"{path} is not UTF-8 text.") from None
    for number, line in _logical_lines(text):
        option, argument = _option(line)
        if option == "-r" and depth < _MAX_DEPTH:
            yield from _requirements(path.parent / argument, kind, depth + 1)
        elif option == "-c" and kind == "-c" and depth < _MAX_DEPTH:
            yield from _requirements(path.parent / argument, "all", depth + 1)
        elif option == "-e" and kind != "-c":
            yield _located(argument, path, number)
        elif option is None and kind != "-c":
            yield _parse(line, path, number)
        elif option == "other" and kind == "-r":
            _log.warning("%s:%d: %r is ignored: nothing is installed.", path.name, number, line)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    start, joined = 1, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not joined:
            start = number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            joined += line[:-1]
            continue
        line = _COMMENT.sub("", joined + line).strip()
        joined = ""
        if line:
            yield start, line
    if joined.strip():
        yield start, joined.strip()


def _option(line: str) -> tuple[str | None, str]:
    """Split an option line; the first is None for a requirement, ``other`` for what has no meaning here."""
    if not line.startswith("-"):
        return None, line
    names = {"-r": ("-r", "--requirement"), "-c": ("-c", "--constraint"), "-e": ("-e", "--editable")}
    for option, (short, long) in names.items():
        for spelling in (long, short):
            if line.startswith(spelling):
                return option, line[len(spelling) :].lstrip(" =")
    return "other", line


def _parse(line: str, path: Path, number: int) -> Requirement:
    line = _LINE_OPTION.sub("", line)
    if _LOCATION.match(line):
        return _located(line, path, number)
    try:
        return Requirement(line)
    except InvalidRequirement as error:
        raise InvalidModel(f"{path.name}:{number}: {line!r} is not a requirement: {error}") from None


def _located(location: str, path: Path, number: int) -> Requirement:
    """Return a requirement by the name that a URL or a path gives away (PEP 427 for wheels)."""
    if egg := _EGG.search(location):
        name = egg[1]
    else:
        name = re.split(r"-\d", os.path.basename(location.rstrip("/")).removesuffix(".git"))[0]
    try:
        return Requirement(f"{name.partition('@')[0]} @ {location}" if ":" in location else name)
    except InvalidRequirement:
        raise InvalidModel(f"{path.name}:{number}: {location!r} does not say which package it is.") from None
