"""Asks an image what is installed in it: a short Python program in a container without network."""

from __future__ import annotations

import json
from typing import Any

from packaging.utils import canonicalize_name

from mmekit.requirements import Distribution
from mmekit_toolkit.archive.environment import ImageEnvironment
from mmekit_toolkit.errors import NotFound, ToolkitError
from mmekit_toolkit.images.engine import engine

#: Seconds that the program may take; listing a thousand distributions takes two.
_TIMEOUT_S = 120
_MEMORY_BYTES = 1024 * 1024 * 1024
#: What an answer of a thousand distributions may have.
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_INTERPRETERS = ("python", "python3")
_BEGIN = "mmekit-environment:"

#: Runs in the image, on any Python from 3.6 on.
_PROGRAM = r"""
import json, os, pkgutil, platform, sys
try:
    from importlib import metadata
except ImportError:
    import importlib_metadata as metadata
found = []
for each in metadata.distributions():
    if each.metadata["Name"]:
        found.append([each.metadata["Name"], each.version, list(each.requires or ())])
modules = set(sys.builtin_module_names) | set(getattr(sys, "stdlib_module_names", ()))
modules.update(each.name for each in pkgutil.iter_modules())
folder = os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY") or os.path.join(
    os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml", "code")
name = os.environ.get("SAGEMAKER_PROGRAM") or "inference.py"
program = os.path.join(folder, name if name.endswith(".py") else name + ".py")
implementation = sys.implementation
markers = {
    "implementation_name": implementation.name, "os_name": os.name, "sys_platform": sys.platform,
    "platform_machine": platform.machine(), "platform_system": platform.system(),
    "platform_release": platform.release(), "platform_version": platform.version(),
    "platform_python_implementation": platform.python_implementation(),
    "python_full_version": platform.python_version(),
    "python_version": ".".join(platform.python_version_tuple()[:2]),
    "implementation_version": platform.python_version(),
}
print("\n" + BEGIN + json.dumps({
    "python": platform.python_version(), "modules": sorted(modules), "distributions": found,
    "markers": markers, "program": program if os.path.isfile(program) else None,
}))
"""


def environment_of(image: str) -> ImageEnvironment:
    """Return what an image of the engine has. Raises NoEngine, NotFound, ToolkitError without a Python."""
    from docker import errors

    client = engine()
    try:
        found = client.images.get(image)
    except errors.ImageNotFound:
        raise NotFound(
            f"the engine has no image {image}. Build it, or fetch it: docker pull {image}."
        ) from None
    settings = found.attrs.get("Config") or {}
    variables = dict(entry.partition("=")[::2] for entry in settings.get("Env") or [])
    output = ""
    for interpreter in _INTERPRETERS:
        output = _run(client, image, interpreter)
        if _BEGIN in output:
            return _parse(image, output.rpartition(_BEGIN)[2], variables)
    raise ToolkitError(
        f"the image {image} did not say what is installed in it: expected a Python of 3.6 or newer as "
        f"`python` or `python3`; it said {output[-500:]!r}."
    )


def _run(client: Any, image: str, interpreter: str) -> str:  # Any: docker ships no types
    """Run the program; return what it and the engine say."""
    from requests import exceptions

    from docker import errors

    container = client.containers.create(
        image,
        entrypoint=[interpreter],
        command=["-c", f"BEGIN = {_BEGIN!r}\n{_PROGRAM}"],
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        mem_limit=_MEMORY_BYTES,
        pids_limit=64,
        labels={"mmekit": "archive-check"},
    )
    try:
        container.start()
        container.wait(timeout=_TIMEOUT_S)
        pieces: list[bytes] = []
        size = 0
        for piece in container.logs(stream=True, follow=False):
            pieces.append(piece)
            size += len(piece)
            if size > _MAX_ANSWER_BYTES:
                break
        return b"".join(pieces).decode("utf-8", "replace")
    except errors.APIError as error:  # no such interpreter: the engine cannot start it
        return str(error.explanation or error)
    except (exceptions.ReadTimeout, exceptions.ConnectionError):
        raise ToolkitError(
            f"the image {image} did not say within {_TIMEOUT_S} s what is installed in it."
        ) from None
    finally:
        container.remove(force=True)


def _parse(image: str, answer: str, variables: dict[str, str]) -> ImageEnvironment:
    try:
        fields = json.loads(answer)
        distributions = [
            Distribution(str(name), str(version), tuple(requires))
            for name, version, requires in fields["distributions"]
        ]
        return ImageEnvironment(
            image=image,
            python_version=str(fields["python"]),
            modules=frozenset(fields["modules"]),
            distributions={canonicalize_name(each.name): each for each in distributions},
            image_markers=dict(fields["markers"]),
            variables=variables,
            program=fields["program"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ToolkitError(f"the image {image} answered what is no list of packages: {error}.") from error
