"""What the errors of docker's SDK mean for a person."""

from __future__ import annotations

from docker import errors as docker
from mmekit_toolkit.errors import NoEngine, NotFound, ToolkitError


def explain(error: Exception) -> ToolkitError | None:
    """Return the error with an explanation in place of docker's, None for what is not docker's."""
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    if isinstance(error, docker.ImageNotFound):
        return NotFound(f"the engine has no such image: {error.explanation}")
    if isinstance(error, docker.APIError):
        return ToolkitError(f"the container engine refused: {error.explanation or error}")
    if isinstance(error, docker.DockerException):
        return ToolkitError(f"the container engine: {error}")
    # docker's SDK speaks to the engine through these two, and lets them through.
    if isinstance(error, (RequestException, HTTPError)):
        return NoEngine(f"the container engine was lost: {error}. Check that it still runs: `docker info`.")
    return None
