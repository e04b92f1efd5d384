"""What SageMaker asks of the image of a multi-model endpoint, as far as it shows without starting it.

The sources are AWS's pages: mms (build-multi-model-build-container), pipelines (inference-pipeline-real-time)
and own containers (your-algorithms-inference-code).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from mmekit_toolkit.images.image import Image

MULTI_MODEL_LABEL = "com.amazonaws.sagemaker.capabilities.multi-models"
BIND_TO_PORT_LABEL = "com.amazonaws.sagemaker.capabilities.accept-bind-to-port"

#: Where SageMaker connects to; a pipeline may choose another port, hence the second label.
PORT = 8080
#: Graviton instances (ml.c7g, ml.m7g …) take arm64, all others amd64.
PLATFORMS = ("linux/amd64", "linux/arm64")
#: CreateModel takes no manifest of another kind: github.com/aws/amazon-sagemaker-feedback/issues/180,
#: github.com/mlflow/mlflow/issues/13834.
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class State(Enum):
    """What a check found."""

    OK = "ok"
    WARNING = "warning"
    #: SageMaker would refuse the image, or its containers would not start.
    FAULT = "fault"


@dataclass(frozen=True)
class Check:
    """One requirement, what was found, and what to do about it."""

    name: str
    state: State
    found: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f" {self.advice}" if self.advice else ""
        return f"{self.state.value:7}  {self.found}{advice}"


def check(image: Image) -> list[Check]:
    """Return what was found, in the order in which SageMaker meets it."""
    checks = [_multi_model(image), _bind_to_port(image), _entry_point(image), _user(image)]
    return [*checks, _port(image), _platform(image), *manifest(image.media_type)]


def faults(checks: Iterable[Check]) -> list[Check]:
    """Return those that SageMaker would not forgive."""
    return [check for check in checks if check.state is State.FAULT]


def _multi_model(image: Image) -> Check:
    value = image.labels.get(MULTI_MODEL_LABEL)
    if value == "true":
        return Check("multi-model label", State.OK, f"label {MULTI_MODEL_LABEL}=true")
    found = f"label {MULTI_MODEL_LABEL} is {'not there' if value is None else repr(value)}:"
    advice = (
        f"CreateModel with Mode=MultiModel refuses the image. Add `LABEL {MULTI_MODEL_LABEL}=true` to the "
        "Dockerfile."
    )
    return Check("multi-model label", State.FAULT, found, advice)


def _bind_to_port(image: Image) -> Check:
    value = image.labels.get(BIND_TO_PORT_LABEL)
    if value == "true":
        return Check("bind-to-port label", State.OK, f"label {BIND_TO_PORT_LABEL}=true")
    found = f"label {BIND_TO_PORT_LABEL} is {'not there' if value is None else repr(value)}:"
    advice = (
        "inference pipelines refuse the image. If its server listens on SAGEMAKER_BIND_TO_PORT, add "
        f"`LABEL {BIND_TO_PORT_LABEL}=true`."
    )
    return Check("bind-to-port label", State.WARNING, found, advice)


def _entry_point(image: Image) -> Check:
    name, words = "entry point", image.entry_point
    if words is None:
        advice = "SageMaker runs the command `serve`, which must then be a program on the image's PATH."
        return Check(name, State.WARNING, "the image has no ENTRYPOINT:", advice)
    if len(words) > 2 and words[0].rpartition("/")[2] in _SHELLS and words[1] == "-c":
        advice = (
            "the argument `serve` does not reach the server, and neither does SIGTERM. Write it in exec "
            f"form: ENTRYPOINT {json.dumps(words[2].split()[:1])}."
        )
        return Check(name, State.FAULT, f"ENTRYPOINT {words[2]!r} is in shell form:", advice)
    return Check(name, State.OK, f"ENTRYPOINT {json.dumps(words)} in exec form")


_SHELLS = {"sh", "bash", "ash", "dash"}


def _user(image: Image) -> Check:
    name = image.user.partition(":")[0]
    if name in ("", "root", "0"):
        return Check("user", State.OK, "user root")
    advice = "SageMaker asks for root; others may lack rights to what it mounts below /opt/ml."
    return Check("user", State.WARNING, f"user {image.user}:", advice)


def _port(image: Image) -> Check:
    if f"{PORT}/tcp" in image.ports:
        return Check("port", State.OK, f"EXPOSE {PORT}")
    found = f"port {PORT} is not exposed:"
    advice = f"SageMaker connects to it all the same; `EXPOSE {PORT}` tells people."
    return Check("port", State.WARNING, found, advice)


def _platform(image: Image) -> Check:
    if image.platform == PLATFORMS[0]:
        return Check("platform", State.OK, f"platform {image.platform}")
    if image.platform in PLATFORMS:
        advice = "only Graviton instances (ml.c7g, ml.m7g and the like) run it."
        return Check("platform", State.WARNING, f"platform {image.platform}:", advice)
    advice = f"no instance runs it. Build with --platform {PLATFORMS[0]}."
    return Check("platform", State.FAULT, f"platform {image.platform}:", advice)


def manifest(media_type: str | None) -> list[Check]:
    """Return what SageMaker would say to a manifest of this type; nothing where none is known."""
    if media_type is None:
        return []
    if media_type == MANIFEST:
        return [Check("manifest", State.OK, f"manifest {media_type}")]
    advice = (
        f"CreateModel takes {MANIFEST} alone, without attestations. Build with `mmekit build`, or with "
        "`docker buildx build --provenance=false --sbom=false --output type=docker,oci-mediatypes=false`."
    )
    return [Check("manifest", State.FAULT, f"manifest {media_type}:", advice)]
