"""The label that an image of a multi-model container must have, looked up in the local engine."""

from __future__ import annotations

import logging

from mmekit_endpoint.errors import ValidationException

#: SageMaker refuses images without it for Mode MultiModel.
MULTI_MODEL = "com.amazonaws.sagemaker.capabilities.multi-models"

logger = logging.getLogger(__name__)


def import_docker() -> None:
    """Import what the label is looked up with, which is 40 modules that only this needs.

    To be called before another thread imports moto: both import requests, and two threads that import a
    package with circular imports at the same time get half of it (CPython's import system breaks the
    deadlock of its module locks that way).
    """
    import docker.client  # noqa: F401


def require_multi_model_label(image: str) -> None:
    """Raise a ValidationException where the engine has the image and the image lacks the label.

    An image that the engine does not have yet is pulled when an endpoint starts; nothing is said of it here.
    """
    from docker.client import DockerClient
    from docker.errors import DockerException, ImageNotFound

    try:
        client = DockerClient.from_env()
        try:
            labels = client.images.get(image).labels
        finally:
            client.close()
    except ImageNotFound:
        return
    except (DockerException, OSError) as error:
        logger.warning("The container engine does not say which labels %s has: %s", image, error)
        return
    if labels.get(MULTI_MODEL) != "true":
        raise ValidationException(
            f"Your Ecr Image {image} does not contain required {MULTI_MODEL}=true Docker label(s)."
        )
