"""From what a person says to what is checked: the subject, its folder of models, the sample."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from mmekit_toolkit import content_types
from mmekit_toolkit.contract.sample import OwnSample, ProbeSample, Sample
from mmekit_toolkit.contract.subjects import ModelsFolder, Subject
from mmekit_toolkit.contract.subjects.command import CommandSubject
from mmekit_toolkit.contract.subjects.url import UrlSubject
from mmekit_toolkit.errors import NotFound, ToolkitError


@contextlib.contextmanager
def chosen(
    target: str | None,
    command: Sequence[str] = (),
    *,
    models_dir: str | None = None,
    environment: Mapping[str, str] | None = None,
    platform: str | None = None,
) -> Iterator[Subject]:
    """Make the subject with a folder for its models, which is removed at the end.

    Parameters:
        target: a URL (``http://`` or ``https://``) or an image; None for a command.
        command: a program and its arguments, run as they are; they include ``serve`` where it is wanted.
        models_dir: ``DIR`` or ``DIR:AS``, a folder that a server at a URL sees, as AS; the kit makes its own
            in it. Without it a temporary one, seen under the same path.
        environment: further variables of the server.
        platform: of the image, such as ``linux/amd64``.

    Raises NoEngine and NotFound for images, NotFound for a folder that is not there, ToolkitError for a URL
    that cannot be used.
    """
    with _folder(models_dir) as models:
        variables = environment or {}
        if target is None:
            yield CommandSubject(command, models, variables)
        elif target.startswith(("http://", "https://")):
            yield UrlSubject(_usable(target), models)
        else:
            # Here, since docker's client is not part of the base install.
            from mmekit_toolkit.contract.subjects.image import ImageSubject

            yield ImageSubject(target, models, variables, platform)


def sample_of(
    model: Path | None = None,
    payload: Path | None = None,
    content_type: str | None = None,
    accept: str | None = None,
) -> Sample:
    """Return the kit's own model, or the person's: a folder, and a file with a request that it answers.

    The content type is known from the file's suffix where it is not given. Raises NotFound.
    """
    if model is None or payload is None:
        return ProbeSample()
    if not model.is_dir() or not any(model.iterdir()):
        raise NotFound(f"{model} is no folder with files. Expected a model's folder, as its archive unpacks.")
    if not payload.is_file():
        raise NotFound(f"there is no file {payload}. Expected a request's body that the model answers.")
    headers = {"Content-Type": content_type or content_types.of_file(payload) or "application/octet-stream"}
    if accept:
        headers["Accept"] = accept
    return OwnSample(model, payload.read_bytes(), headers)


@contextlib.contextmanager
def _folder(models_dir: str | None) -> Iterator[ModelsFolder]:
    name = f"mmekit-contract-{secrets.token_hex(4)}"
    if models_dir is None:
        # Resolved, for engines: macOS has its temporary folders behind a link.
        parent = Path(tempfile.gettempdir()).resolve()
        seen_as = str(parent)
    else:
        here, _, there = models_dir.partition(":")
        parent = Path(here).resolve()
        seen_as = there.rstrip("/") if there else str(parent)
        if not parent.is_dir():
            raise NotFound(f"there is no folder {here}. Expected one that the server sees too.")
    folder = parent / name
    folder.mkdir(mode=0o755)
    try:
        folder.chmod(0o755)  # whatever the umask is: a container's user must read it
        yield ModelsFolder(folder, f"{seen_as}/{name}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _usable(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.hostname and parts.port != 0 and not parts.path.strip("/") and not parts.query:
            return f"{parts.scheme}://{parts.netloc}"
    except ValueError:
        pass  # the port, or the IPv6 address, is none
    raise ToolkitError(f"{url} cannot be used. Expected http://HOST:PORT, without a path.")
