"""Images as an instance needs them: present, and labelled for what they are to serve."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import docker.errors
from docker.utils import parse_repository_tag

from mmekit_endpoint.definitions import ContainerSpec
from mmekit_endpoint.errors import LaunchFailed
from mmekit_endpoint.fleet.launchers.docker_engine import DockerEngine, launch_errors
from mmekit_endpoint.fleet.launchers.waiting import in_own_thread

#: An image for MultiModel mode must have it (AWS: build-multi-model-build-container).
MULTI_MODEL_LABEL = "com.amazonaws.sagemaker.capabilities.multi-models"


class DockerImages:
    """The images of one engine; each is pulled once however many instances wait for it."""

    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine
        self._pulling: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, spec: ContainerSpec) -> Any:
        """Return the image of a container as the SDK's object. Raises LaunchFailed.

        As with ``docker run``, what is there is taken as it is, ``latest`` too; what is not is pulled.
        """
        async with self._pulling[spec.image]:
            image = await self._present(spec.image)
            if image is None:
                image = await self._pull(spec.image)
        if spec.multi_model and image.labels.get(MULTI_MODEL_LABEL) != "true":
            raise LaunchFailed(
                f"The image {spec.image} has no label {MULTI_MODEL_LABEL}=true, which SageMaker asks of "
                "containers with Mode MultiModel. Add the LABEL to its Dockerfile, or use Mode SingleModel."
            )
        return image

    async def _present(self, name: str) -> Any:
        client = await self._engine.client()
        with launch_errors(f"The image {name} cannot be looked up"):
            try:
                return await self._engine.call(client.images.get, name)
            except docker.errors.ImageNotFound:
                return None

    async def _pull(self, name: str) -> Any:
        client = await self._engine.client()
        with launch_errors(f"The image {name} is not on this machine and cannot be pulled"):
            return await in_own_thread(lambda: _pulled(client, name), f"pull {name}")


def _pulled(client: Any, name: str) -> Any:
    repository, tag = parse_repository_tag(name)
    for line in client.api.pull(repository, tag=tag or "latest", stream=True, decode=True):
        if text := line.get("error"):  # after the engine has begun to answer it is too late for a status
            raise docker.errors.DockerException(text)
    return client.images.get(name)


def resolved_name(image: Any, name: str) -> str:
    """Return what an image is for certain: its digest in the repository it came from, else its id."""
    digests: list[str] = image.attrs.get("RepoDigests") or []
    for digest in digests:
        repository = digest.partition("@")[0]
        if name == repository or name.startswith((repository + ":", repository + "@")):
            return digest
    return digests[0] if digests else str(image.id)
