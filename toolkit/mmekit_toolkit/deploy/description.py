"""What one YAML file says of an endpoint: the schema, as types.

``file`` reads it, ``plan`` makes requests of it. Names in the file are those of the fields; each has its
unit, or the AWS member that it becomes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

#: An endpoint's name; nine characters of SageMaker's 63 are for the hash in the names of models and
#: configurations (botocore: EndpointName).
Name = Annotated[str, Meta(pattern="^[a-zA-Z0-9](-*[a-zA-Z0-9])*$", max_length=54)]
Variant = Annotated[str, Meta(pattern="^[a-zA-Z0-9](-*[a-zA-Z0-9])*$", max_length=63)]
#: An ARN, or the name of a role in the caller's account.
Role = Annotated[str, Meta(min_length=1, max_length=2048)]
Image = Annotated[str, Meta(pattern=r"^\S+$", max_length=255)]
Prefix = Annotated[str, Meta(pattern="^s3://[^/]+/(.*/)?$", max_length=1024)]
InstanceType = Annotated[str, Meta(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")]
Percent = Annotated[float, Meta(ge=0, le=100)]
Seconds = Annotated[int, Meta(ge=0)]
#: Of one start or download (botocore: ProductionVariant).
StartSeconds = Annotated[int, Meta(ge=60, le=3600)]


class Part(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all parts of the file."""


class Vpc(Part, frozen=True, kw_only=True):
    """``VpcConfig`` of the models: at least two subnets, in different zones, are AWS's advice."""

    subnets: Annotated[list[str], Meta(min_length=1, max_length=16)]
    security_groups: Annotated[list[str], Meta(min_length=1, max_length=5)]


class PrivateLink(Part, frozen=True, kw_only=True):
    """Interface endpoints through which a VPC's own machines reach SageMaker without the internet."""

    vpc: str
    subnets: Annotated[list[str], Meta(min_length=1)]
    security_groups: Annotated[list[str], Meta(min_length=1)]
    #: runtime is InvokeEndpoint, api the control plane, s3 a gateway that models are fetched through.
    services: list[Literal["runtime", "api", "s3"]] = field(default_factory=lambda: ["runtime"])
    #: Route tables of the gateway for s3.
    route_tables: list[str] = []
    private_dns: bool = True


class Autoscaling(Part, frozen=True, kw_only=True):
    """Application Auto Scaling of a variant's instances: target tracking."""

    min: Annotated[int, Meta(ge=1)]
    max: Annotated[int, Meta(ge=1)]
    #: SageMakerVariantInvocationsPerInstance: calls a minute and instance, over all models.
    invocations_per_instance: Annotated[float, Meta(gt=0)] | None = None
    #: SageMakerVariantConcurrentRequestsPerModelHighResolution.
    concurrent_requests_per_model: Annotated[float, Meta(gt=0)] | None = None
    #: MemoryUtilization of /aws/sagemaker/Endpoints; AWS's advice where models come and go is 80.
    memory_percent: Percent | None = None
    scale_out_cooldown_s: Seconds = 300
    scale_in_cooldown_s: Seconds = 300
    scale_in: bool = True


class Alarms(Part, frozen=True, kw_only=True):
    """CloudWatch alarms of a variant; those that are given are made. They also roll an update back."""

    #: ModelLatency, 99th percentile, in milliseconds.
    model_latency_p99_ms: Annotated[float, Meta(gt=0)] | None = None
    #: Invocation5XXErrors, share of calls.
    errors_5xx_percent: Percent | None = None
    #: Invocation4XXErrors, share of calls.
    errors_4xx_percent: Percent | None = None
    #: ModelCacheHit: below this share models thrash.
    cache_hit_percent: Percent | None = None
    #: MemoryUtilization and DiskUtilization of /aws/sagemaker/Endpoints.
    memory_percent: Percent | None = None
    disk_percent: Percent | None = None
    #: Minutes in a row.
    minutes: Annotated[int, Meta(ge=1, le=1440)] = 5
    #: SNS topics (ARNs) that are told.
    notify: list[str] = []


class VariantDescription(Part, frozen=True, kw_only=True):
    """One production variant; what it leaves out is the file's own."""

    name: Variant = "AllTraffic"
    instance_type: InstanceType
    instances: Annotated[int, Meta(ge=1)] = 1
    weight: Annotated[float, Meta(ge=0)] = 1.0
    volume_gb: Annotated[int, Meta(ge=1, le=512)] | None = None
    download_timeout_s: StartSeconds | None = None
    startup_timeout_s: StartSeconds | None = None
    image: Image | None = None
    models: Prefix | None = None
    environment: dict[str, str] | None = None
    autoscaling: Autoscaling | None = None
    alarms: Alarms | None = None


class Update(Part, frozen=True, kw_only=True):
    """How ``mmekit update`` moves traffic (botocore: BlueGreenUpdatePolicy)."""

    traffic: Literal["all-at-once", "canary", "linear"] = "all-at-once"
    #: Share of the instances of the first step, or of each.
    step_percent: Annotated[int, Meta(ge=1, le=50)] = 10
    wait_s: Annotated[int, Meta(ge=0, le=3600)] = 300
    #: Before the old fleet ends.
    termination_wait_s: Annotated[int, Meta(ge=0, le=3600)] = 0
    timeout_s: Annotated[int, Meta(ge=600, le=28800)] = 14400
    #: The endpoint's own alarms roll the update back.
    rollback_on_alarms: bool = True


class Description(Part, frozen=True, kw_only=True):
    """An endpoint: the whole file."""

    name: Name
    #: In ECR, by tag or by digest; a tag is resolved when it is deployed.
    image: Image
    role: Role
    #: The prefix below which archives lie, with its slash.
    models: Prefix
    variants: Annotated[list[VariantDescription], Meta(min_length=1, max_length=10)]
    region: str | None = None
    #: ModelCacheSetting: false for very many models that are used once.
    cache: bool = True
    environment: Annotated[dict[str, str], Meta(max_length=100)] = {}
    network_isolation: bool = False
    vpc: Vpc | None = None
    #: Encrypts the instances' volumes (not those with NVMe of their own).
    kms_key: str | None = None
    private_link: PrivateLink | None = None
    update: Update = Update()
    tags: dict[str, str] = {}
