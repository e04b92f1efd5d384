"""boto3 clients of one account, region and address; made when first used."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, wraps
from typing import Any
from urllib.parse import urlsplit

import click

from mmekit import __version__
from mmekit_toolkit.errors import CredentialsError, ToolkitError

#: Attempts of one call, the first included. botocore's standard mode waits between them: a random share of
#: 1, 2, 4 … s, at most 20 s (botocore.retries.standard.ExponentialBackoff).
ATTEMPTS = 8
#: Services whose calls the client does not repeat by itself: a model may have had the call, and a lost answer
#: of 70 s would be waited for eight times.
_CALLED_ONCE = frozenset({"sagemaker-runtime"})
#: What botocore's partitions call the ends of AWS's host names.
_DOMAINS = ("dnsSuffix", "dualStackDnsSuffix")
#: A model's answer may take 60 s (botocore: InvokeEndpoint).
_READ_TIMEOUT_S = 70
#: An address that takes no connection is tried ATTEMPTS times; botocore's 60 s would be eight minutes.
_CONNECT_TIMEOUT_S = 10


@dataclass(frozen=True)
class Aws:
    """Where AWS is; ``endpoint_url`` stands for all services, as AWS_ENDPOINT_URL does."""

    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None
    _made: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def client(self, service: str) -> Any:  # Any: boto3 makes its clients at run time
        """Return a service's client. Raises ToolkitError without a region, CredentialsError without keys."""
        if service not in self._made:
            self._made[service] = self._make(service)
        return self._made[service]

    def _make(self, service: str) -> Any:
        from botocore.config import Config

        region = self.region_name
        if self.session.get_credentials() is None:
            raise CredentialsError(
                "no AWS credentials were found. Sign in (`aws sso login`, `aws configure`), choose a "
                "profile with --profile, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; a local "
                "endpoint takes any values."
            )
        attempts = 1 if service in _CALLED_ONCE else ATTEMPTS
        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
            user_agent_extra=f"mmekit/{__version__}",
        )
        try:
            client = self.session.client(service, region, endpoint_url=self.endpoint_url, config=config)
        except ValueError as error:
            raise ToolkitError(
                f"{error}. Expected an address such as http://127.0.0.1:8765 in --endpoint-url or "
                "AWS_ENDPOINT_URL."
            ) from error
        if service == "s3" and not is_amazon(client.meta.endpoint_url):
            # Only AWS has a host name for each bucket; an address that is no IP would be given one, too.
            config = config.merge(Config(s3={"addressing_style": "path"}))
            client = self.session.client(service, region, endpoint_url=self.endpoint_url, config=config)
        return client

    @property
    def session(self) -> Any:
        """The boto3 session."""
        if "session" not in self._made:
            import boto3
            import botocore.session

            inner = botocore.session.get_session()
            inner.register_component("data_loader", service_models().get_component("data_loader"))
            # boto3 itself reads AWS_DEFAULT_REGION and profiles; AWS_REGION is what all other SDKs read.
            region = self.region or os.environ.get("AWS_REGION")
            self._made["session"] = boto3.session.Session(
                region_name=region, profile_name=self.profile, botocore_session=inner
            )
        return self._made["session"]

    @property
    def region_name(self) -> str:
        """The region that calls go to. Raises ToolkitError when none is set."""
        if self.region:
            return self.region  # without boto3, which takes long to import
        if self.session.region_name is None:
            raise ToolkitError(
                "no AWS region is set: give --region, write `region:` into the file, or set AWS_REGION."
            )
        return str(self.session.region_name)

    @property
    def partition(self) -> str:
        """The region's partition, the second part of its ARNs: ``aws``, ``aws-cn``, …"""
        return str(self.session.get_partition_for_region(self.region_name))

    @property
    def account(self) -> str:
        """The caller's account, twelve digits."""
        if "account" not in self._made:
            self._made["account"] = self.client("sts").get_caller_identity()["Account"]
        return str(self._made["account"])

    def in_region(self, region: str | None) -> Aws:
        """Return the same with this region, where the caller named none."""
        return self if region is None or self.region else Aws(region, self.profile, self.endpoint_url)


@cache
def service_models() -> Any:  # Any: botocore ships no types
    """Return a botocore session that keeps the service models it has parsed: SageMaker's has megabytes."""
    from botocore.session import get_session

    return get_session()


def is_amazon(url: str) -> bool:
    """Say whether an address is AWS's own, and not that of a local endpoint or another stand-in."""
    host = urlsplit(url).hostname or ""
    partitions = service_models().get_component("data_loader").load_data("partitions")["partitions"]
    domains = [partition["outputs"][name] for partition in partitions for name in _DOMAINS]
    return host.endswith(tuple(f".{domain}" for domain in domains))


def aws_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --region, --profile and --endpoint-url; the function gets them as ``aws: Aws``."""

    @click.option(
        "--region", metavar="REGION", help="AWS region. Else the file's, AWS_REGION, the profile's."
    )
    @click.option("--profile", metavar="NAME", help="Profile of ~/.aws/config. [AWS_PROFILE]")
    @click.option(
        "--endpoint-url",
        metavar="URL",
        help="Address in place of AWS's, for all services: a local endpoint. [AWS_ENDPOINT_URL]",
    )
    @wraps(command)
    def with_aws(
        *args: Any, region: str | None, profile: str | None, endpoint_url: str | None, **kwargs: Any
    ) -> Any:
        return command(*args, aws=Aws(region, profile, endpoint_url), **kwargs)

    return with_aws
