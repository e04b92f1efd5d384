"""What engines and registries say when they do not push, and what it means."""

from __future__ import annotations

import re
from enum import Enum, auto

from mmekit_toolkit.errors import CredentialsError, NotFound, ToolkitError
from mmekit_toolkit.images.name import ImageName


class Cause(Enum):
    """Why a registry did not do what it was asked."""

    #: The connection broke, or the registry was not able to answer: worth another attempt.
    DROPPED = auto()
    #: Credentials are missing, wrong or expired: worth a new login.
    UNAUTHORIZED = auto()
    DENIED = auto()
    IMMUTABLE_TAG = auto()
    NO_REPOSITORY = auto()
    NO_TLS = auto()
    OTHER = auto()


#: In this order: ECR says ``denied`` to an expired token, too. The texts are those of docker's client of
#: registries (distribution: registry/client/errors.go), of Go's net and net/http, and of ECR.
_PATTERNS = {
    Cause.UNAUTHORIZED: r"unauthorized|token has expired|no basic auth credentials|authentication required",
    Cause.IMMUTABLE_TAG: r"tag invalid|immutable",
    Cause.NO_REPOSITORY: r"name unknown|repository .* not found",
    Cause.NO_TLS: r"server gave HTTP response to HTTPS client|x509:|certificate",
    Cause.DENIED: r"denied|forbidden|not authorized",
    Cause.DROPPED: (
        r"\bEOF\b|connection reset|broken pipe|connection refused|i/o timeout|deadline exceeded|timed? ?out|"
        r"use of closed network connection|server closed idle connection|network is unreachable|"
        r"no route to host|no such host|temporary failure|unexpected HTTP status: 5|status code 5\d\d|"
        r"blob upload (unknown|invalid)|toomanyrequests|too many requests"
    ),
}


def cause(message: str) -> Cause:
    """Return what a message of the engine means."""
    for found, pattern in _PATTERNS.items():
        if re.search(pattern, message, re.IGNORECASE):
            return found
    return Cause.OTHER


def explain(message: str, name: ImageName, attempts: int, *, ecr: bool) -> ToolkitError:
    """Return the error that tells a person what the message means and what to do."""
    found = cause(message)
    said = f"{name.address}: {message.strip().rstrip('.')}."
    if found is Cause.DROPPED:
        return ToolkitError(
            f"{said} The registry was lost {attempts} times in a row. Check the network, proxy or VPN, then "
            "run the same command again: layers that have arrived are not sent twice."
        )
    if found is Cause.UNAUTHORIZED and ecr:
        return CredentialsError(
            f"{said} The registry does not accept the token that ECR gave a moment ago. Check that region "
            "and account are those of the registry, and --registry, if given."
        )
    if found is Cause.UNAUTHORIZED:
        return CredentialsError(f"{said} Sign in with `docker login {name.registry}`.")
    if found is Cause.DENIED:
        advice = (
            "The caller needs ecr:InitiateLayerUpload, UploadLayerPart, CompleteLayerUpload, PutImage, "
            "BatchCheckLayerAvailability and BatchGetImage: `mmekit iam deployer` prints the policy."
            if ecr
            else f"Sign in with `docker login {name.registry}` as a user who may write to it."
        )
        return CredentialsError(f"{said} {advice}")
    if found is Cause.IMMUTABLE_TAG:
        return ToolkitError(f"{said} Tags of this repository cannot be moved: choose another with --tag.")
    if found is Cause.NO_REPOSITORY:
        return NotFound(f"{said} Create the repository in its registry first, or check --repository.")
    if found is Cause.NO_TLS:
        return ToolkitError(
            f"{said} The engine speaks TLS with registries. Give it the registry's certificate "
            f"(/etc/docker/certs.d/{name.registry}/ca.crt), or list {name.registry} under its "
            "`insecure-registries`."
        )
    return ToolkitError(f"{said} The push ended there.")
