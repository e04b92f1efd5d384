"""The repository that an image goes to, as a push sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mmekit_toolkit.aws import ecr
from mmekit_toolkit.deploy.requests import Request


class Repository(Protocol):
    """What a push needs to know of a repository."""

    #: The registry's host, as docker takes it.
    @property
    def host(self) -> str: ...

    @property
    def name(self) -> str: ...

    def missing(self) -> Request | None:
        """Return the request that makes it, None if it is there or is not ours to make."""

    def make(self) -> list[str]:
        """Make it if it is not there; return remarks for people."""

    def keeps(self, tag: str) -> bool:
        """Say whether the tag cannot be moved once it is there."""

    def image_id(self, tag: str) -> str | None:
        """Return docker's id of the image that has the tag, None if that cannot be known."""

    def sign_in(self) -> ecr.Login | None:
        """Return new credentials, None where docker's own configuration has them."""

    def sign_in_command(self) -> list[str]:
        """Return what a person would type to sign docker in."""

    def scan_findings(self, digest: str) -> dict[str, int] | None:
        """Return severity → number of findings, None where there is no result."""


@dataclass(frozen=True)
class OtherRepository:
    """A repository of a registry that is not ECR; AWS is not called."""

    host: str
    name: str

    def missing(self) -> Request | None:
        return None

    def make(self) -> list[str]:
        return ["SageMaker takes images from ECR; from another registry only through a VPC (ImageConfig)."]

    def keeps(self, tag: str) -> bool:
        return False

    def image_id(self, tag: str) -> str | None:
        return None

    def sign_in(self) -> ecr.Login | None:
        return None

    def sign_in_command(self) -> list[str]:
        return [f"docker login {self.host}"]

    def scan_findings(self, digest: str) -> dict[str, int] | None:
        return None
