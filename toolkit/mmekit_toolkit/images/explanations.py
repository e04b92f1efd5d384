"""What docker's errors mean for a person."""

from __future__ import annotations

from docker import errors as docker
from mmekit_toolkit.errors import NotFound, ToolkitError


def explain(error: Exception) -> ToolkitError | None:
    """Return the error with an explanation in place of docker's, None for what is not docker's."""
    if isinstance(error, docker.ImageNotFound):
        return NotFound(f"the engine has no such image: {error.explanation}")
    if isinstance(error, docker.APIError):
        return ToolkitError(f"the container engine refused: {error.explanation or error}")
    if isinstance(error, docker.DockerException):
        return ToolkitError(f"the container engine: {error}")
    return None
