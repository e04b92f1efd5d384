"""``docker build`` as people know it: its command line, its output, its end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmekit_toolkit.errors import NoEngine, ToolkitError
from mmekit_toolkit.images import build_output

#: Bytes of output that are kept to explain a failure.
_KEPT_BYTES = 64 * 1024
#: Seconds that docker has to end by itself after Ctrl-C.
_INTERRUPT_TIMEOUT_S = 15
#: The first version that attaches attestations, and has the options against them.
_ATTESTING = (0, 10)


@dataclass(frozen=True)
class Order:
    """What is to be built; ``more`` are options that docker alone knows."""

    context: str
    tag: str
    platform: str
    file: str | None = None
    build_args: tuple[str, ...] = ()
    target: str | None = None
    pull: bool = False
    no_cache: bool = False
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class Builder:
    """BuildKit by way of buildx, of which version; without buildx it is docker's legacy builder."""

    buildx: tuple[int, int] | None = None


def find_builder(environ: Mapping[str, str]) -> Builder:
    """Return what builds here: buildx unless DOCKER_BUILDKIT=0. Raises NoEngine without docker."""
    if shutil.which("docker") is None:
        raise NoEngine(
            "the command `docker` was not found. Install Docker's command line (packages docker-ce-cli and "
            "docker-buildx-plugin, or Docker Desktop); with podman, podman-docker."
        )
    if environ.get("DOCKER_BUILDKIT") == "0":
        return Builder()
    done = subprocess.run(
        ["docker", "buildx", "version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )
    return Builder(buildx_version(done.stdout) if done.returncode == 0 else None)


def buildx_version(text: str) -> tuple[int, int] | None:
    """Return the version in what ``docker buildx version`` prints, None where that is not buildx."""
    name, _, version = text.strip().partition(" ")
    if not name.endswith("/buildx"):
        return None  # podman answers, too, and has no such builder
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else _ATTESTING


def command_line(order: Order, builder: Builder) -> list[str]:
    """Return docker's command.

    SageMaker takes images with Docker's own manifest alone (see ``requirements.MANIFEST``). BuildKit writes
    OCI's, and an index where it attaches attestations, as buildx does since 0.10 unless told otherwise; so
    it is told otherwise (docs.docker.com/build/exporters: ``oci-mediatypes``). The legacy builder knows
    nothing else than Docker's; it would leave the container of a failed step behind.
    """
    words = ["docker", "build", "--force-rm"]
    if builder.buildx:
        words = ["docker", "buildx", "build"]
        words += ["--provenance=false", "--sbom=false"] if builder.buildx >= _ATTESTING else []
        words += ["--output", "type=docker,oci-mediatypes=false"]
    words += ["--tag", order.tag, "--platform", order.platform]
    words += ["--file", order.file] if order.file else []
    for build_arg in order.build_args:
        words += ["--build-arg", build_arg]
    words += ["--target", order.target] if order.target else []
    words += ["--pull"] if order.pull else []
    words += ["--no-cache"] if order.no_cache else []
    return [*words, *order.more, order.context]


def run(words: Sequence[str], builder: Builder) -> None:
    """Run docker's command; what it prints goes to stderr as it comes.

    Raises ToolkitError with the failed step when docker fails, KeyboardInterrupt after Ctrl-C, when docker
    has ended.
    """
    # On a terminal buildx draws; what it draws, the failed step among it, stays on the screen.
    draws = builder.buildx is not None and sys.stderr.isatty()
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno() if draws else subprocess.PIPE,
        stderr=None if draws else subprocess.STDOUT,
        # podman in docker's place writes OCI manifests unless told otherwise.
        env={**os.environ, "BUILDAH_FORMAT": "docker"},
    )
    try:
        output = _pass_on(process)
        code = process.wait()
    except KeyboardInterrupt:
        _interrupt(process)
        raise KeyboardInterrupt(
            "the build was interrupted; what its finished steps made is in docker's cache."
        ) from None
    finally:
        if process.stdout:
            process.stdout.close()
    if code:
        raise ToolkitError(build_output.explain(code, output))


def _pass_on(process: subprocess.Popen[bytes]) -> str:
    """Copy what docker prints to stderr until it ends; return the last of it."""
    if process.stdout is None:
        return ""
    kept = b""
    while chunk := os.read(process.stdout.fileno(), 65536):
        sys.stderr.buffer.write(chunk)
        sys.stderr.buffer.flush()
        kept = (kept + chunk)[-_KEPT_BYTES:]
    return kept.decode(errors="replace")


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """Return when docker has ended. A terminal's Ctrl-C has reached it, too; a signal to us alone has not."""
    deadline = time.monotonic() + _INTERRUPT_TIMEOUT_S
    try:
        process.wait(0.5)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
