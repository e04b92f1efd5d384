"""What is there of an endpoint, as AWS describes it; `observing` reads it, `plan` compares it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Described = Mapping[str, Any]

#: States that end by themselves (botocore: EndpointStatus).
MOVING = {"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"}


@dataclass(frozen=True)
class Endpoint:
    """What DescribeEndpoint says."""

    described: Described

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.described["EndpointName"])

    @property
    def arn(self) -> str:
        """Its ARN."""
        return str(self.described["EndpointArn"])

    @property
    def status(self) -> str:
        """The state, as botocore's EndpointStatus has it: InService, Creating, Failed and others."""
        return str(self.described["EndpointStatus"])

    @property
    def is_moving(self) -> bool:
        """The state ends by itself."""
        return self.status in MOVING

    @property
    def config_name(self) -> str | None:
        """The configuration that it runs; a Failed one may have none."""
        return self.described.get("EndpointConfigName")

    @property
    def failure_reason(self) -> str | None:
        """Why it is Failed, or why the last change was rolled back."""
        return self.described.get("FailureReason")

    @property
    def counts(self) -> dict[str, int]:
        """Variant → instances that are wanted now, by a person or by autoscaling."""
        return self._of_variants("DesiredInstanceCount")

    @property
    def weights(self) -> dict[str, float]:
        """Variant → weight that is wanted now."""
        return self._of_variants("DesiredWeight")

    def _of_variants(self, member: str) -> dict[str, Any]:
        variants = self.described.get("ProductionVariants", [])
        return {variant["VariantName"]: variant[member] for variant in variants if member in variant}


@dataclass(frozen=True)
class Resource:
    """A model or an endpoint configuration of ours."""

    name: str
    arn: str
    described: Described


@dataclass(frozen=True, kw_only=True)
class Observed:
    """All that is there of an endpoint, and all of it ours: `observing` refuses what is not."""

    endpoint: Endpoint | None = None
    #: Those that the description wants and those that the endpoint runs, as far as they are there.
    models: Mapping[str, Resource] = field(default_factory=dict)
    configs: Mapping[str, Resource] = field(default_factory=dict)
    #: Variant → scalable target, and → our policy of it.
    targets: Mapping[str, Described] = field(default_factory=dict)
    policies: Mapping[str, Described] = field(default_factory=dict)
    #: By name.
    alarms: Mapping[str, Described] = field(default_factory=dict)
    #: Service → VPC endpoint in the VPC of the description, whoever made it.
    vpc_endpoints: Mapping[str, Described] = field(default_factory=dict)
    #: ARN → tags of the endpoint, the models and the configurations.
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def serving(self) -> Endpoint | None:
        """The endpoint, if it stays: one that is Failed can only be deleted."""
        endpoint = self.endpoint
        return None if endpoint is None or endpoint.status in ("Deleting", "Failed") else endpoint

    @property
    def config(self) -> Described | None:
        """The configuration that the endpoint runs; None without an endpoint, or when it was deleted."""
        name = self.endpoint.config_name if self.endpoint else None
        found = self.configs.get(name) if name else None
        return found.described if found else None
