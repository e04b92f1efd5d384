"""A repository of ECR: found and used as it is, or made as it should be."""

from __future__ import annotations

from typing import Any

from mmekit_toolkit.aws import ecr
from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.deploy import ownership
from mmekit_toolkit.deploy.requests import Request
from mmekit_toolkit.errors import NotFound, ToolkitError


class EcrRepository:
    """A repository of ECR. What is there is used as it is; what is not is made."""

    def __init__(self, aws: Aws, name: str, *, host: str | None, stand_in: str | None, kms_key: str | None):
        """Take ECR's ``host`` if the caller named one; images go to ``stand_in`` in its place, if given.

        Raises ToolkitError when the host is of another region than the caller asks for.
        """
        self.name = ecr.check_repository(name)
        self._owner = ecr.address(host)
        if self._owner:
            aws = _in_region(aws, self._owner)
        self._aws = aws
        self._host = stand_in or host
        self._is_stand_in = stand_in is not None
        self._kms_key = kms_key
        self._description: ecr.Json | None = None

    @property
    def host(self) -> str:
        if self._host is None:
            found = self._find()
            self._host = found["repositoryUri"].partition("/")[0] if found else ecr.own_host(self._aws)
        return self._host

    def missing(self) -> Request | None:
        return None if self._find() else self._creation()

    def make(self) -> list[str]:
        if found := self._find():
            return self._remarks(found)
        if self._owner and self._owner.account != self._aws.account:
            raise NotFound(
                f"the account {self._owner.account} has no repository {self.name} in {self._owner.region}. "
                f"Its owner creates it and lets {self._aws.account} push to it; --repository {self.name} "
                "pushes to your own."
            )
        client = self._aws.client("ecr")
        try:
            self._description = self._creation().send(self._aws)["repository"]
        except client.exceptions.RepositoryAlreadyExistsException:
            return self._remarks(self._find() or {})  # another push has made it in between
        return [f"created the repository {self.name}: immutable tags, a scan of each push, encrypted."]

    def keeps(self, tag: str) -> bool:
        return ecr.is_immutable(self._find() or {}, tag)

    def image_id(self, tag: str) -> str | None:
        found = self._find()
        return ecr.config_digest(self._aws, found, tag) if found and not self._is_stand_in else None

    def sign_in(self) -> ecr.Login | None:
        return ecr.login(self._aws)

    def sign_in_command(self) -> list[str]:
        login = f"docker login --username AWS --password-stdin {self.host}"
        return [f"aws ecr get-login-password --region {self._aws.region_name} | {login}"]

    def scan_findings(self, digest: str) -> dict[str, int] | None:
        found = self._find()
        return ecr.scan_findings(self._aws, found, digest) if found and not self._is_stand_in else None

    def _find(self) -> ecr.Json | None:
        if self._description is None:
            owner = self._owner.account if self._owner else None
            self._description = ecr.repository(self._aws, self.name, owner)
        return self._description

    def _creation(self) -> Request:
        encryption = {"encryptionType": "AES256"}
        if self._kms_key:
            encryption = {"encryptionType": "KMS", "kmsKey": self._kms_key}
        parameters: dict[str, Any] = {  # Any: AWS's structures
            "repositoryName": self.name,
            "imageTagMutability": "IMMUTABLE",
            "imageScanningConfiguration": {"scanOnPush": True},
            "encryptionConfiguration": encryption,
            "tags": ownership.tags(self.name, {}),
        }
        return Request("ecr", "CreateRepository", parameters, f"create the repository {self.name}")

    def _remarks(self, found: ecr.Json) -> list[str]:
        """Return what one should know of a repository that was there; it is not changed."""
        remarks = []
        mutability = found.get("imageTagMutability", "MUTABLE")
        if mutability.startswith("MUTABLE"):
            remarks.append(
                f"tags of {self.name} can be moved to other images (imageTagMutability {mutability}): deploy "
                "by digest, as printed below."
            )
        key = found.get("encryptionConfiguration", {}).get("kmsKey")
        if self._kms_key and key != self._kms_key:
            remarks.append(
                f"{self.name} was there, encrypted with {key or 'AES256'}; that cannot be changed, and "
                "--kms-key has no effect."
            )
        return remarks


def _in_region(aws: Aws, owner: ecr.Address) -> Aws:
    if aws.region and aws.region != owner.region:
        raise ToolkitError(
            f"the registry is in {owner.region}, but --region is {aws.region}. SageMaker needs images in the "
            "endpoint's own region: leave one of the two out, or make them the same."
        )
    return aws.in_region(owner.region)
