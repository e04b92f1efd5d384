"""What one YAML file says of an endpoint: the schema, as types.

``file`` reads it, ``plan`` makes requests of it. Each field has its meaning, its unit in its name, and the
member of AWS's API that it becomes (`aws`): what botocore's service model says of that member holds for the
field, too. ``schema`` prints all of it, for editors and for people.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

#: Key in `Meta.extra` of the member that a field becomes: ``service.Operation.Member``.
AWS = "aws"
#: Key of what a value must look like, in words.
EXPECTED = "expected"
#: Key of the reason for a limit.
WHY = "why"
#: Characters of an endpoint's name. SageMaker's names have 63; nine are for the hyphen and the hash that end
#: the names of models and configurations.
NAME_CHARACTERS = 63 - 9


def aws(path: str) -> Meta:
    """Return what makes the constraints of a member, ``sagemaker.CreateModel.ModelName``, the field's."""
    return Meta(extra={AWS: path})


def doc(text: str) -> Meta:
    """Return a field's meaning."""
    return Meta(description=text)


Count = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]
StepPercent = Annotated[int, Meta(ge=1, le=50)]
Percent = Annotated[float, Meta(gt=0, le=100)]
Image = Annotated[str, aws("sagemaker.CreateModel.PrimaryContainer.Image"), Meta(min_length=1)]
Prefix = Annotated[
    str,
    aws("sagemaker.CreateModel.PrimaryContainer.ModelDataUrl"),
    Meta(
        pattern="^s3://[^/]+/(.*/)?$",
        extra={EXPECTED: "an S3 prefix that ends with a slash, such as s3://bucket/models/"},
    ),
]
Environment = Annotated[dict[str, str], aws("sagemaker.CreateModel.PrimaryContainer.Environment")]
#: Of a model's containers.
Subnets = Annotated[list[str], aws("sagemaker.CreateModel.VpcConfig.Subnets")]
SecurityGroups = Annotated[list[str], aws("sagemaker.CreateModel.VpcConfig.SecurityGroupIds")]
_VARIANTS = "sagemaker.CreateEndpointConfig.ProductionVariants[]."
_BLUE_GREEN = "sagemaker.UpdateEndpoint.DeploymentConfig.BlueGreenUpdatePolicy."


class Part(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all parts of the file."""


class Vpc(Part, frozen=True, kw_only=True):
    """The VPC that the containers are attached to (``VpcConfig``)."""

    subnets: Annotated[Subnets, doc("Subnets, at least two in different zones.")]
    security_groups: Annotated[SecurityGroups, doc("Security groups of the containers.")]


class PrivateLink(Part, frozen=True, kw_only=True):
    """VPC endpoints through which a VPC's own machines reach SageMaker and S3 without the internet.

    One that is there already, whoever made it, is used as it is. What a file does not name any more stays,
    as others may use it; `mmekit delete` deletes what mmekit made.
    """

    vpc: Annotated[str, doc("The VPC whose machines call.")]
    subnets: Annotated[list[str], doc("Subnets of the interface endpoints.")] = []
    security_groups: Annotated[list[str], doc("Security groups of the interface endpoints.")] = []
    services: Annotated[
        list[Literal["runtime", "api", "s3"]],
        Meta(min_length=1),
        doc("runtime: InvokeEndpoint; api: the control plane; s3: a gateway for archives."),
    ] = field(default_factory=lambda: ["runtime"])
    route_tables: Annotated[list[str], doc("Route tables of the gateway for s3.")] = []
    private_dns: Annotated[bool, doc("AWS's usual host names lead to the interface endpoints.")] = True


class Autoscaling(Part, frozen=True, kw_only=True):
    """Target tracking of a variant's number of instances; exactly one of the three targets is given."""

    min: Annotated[
        Count, aws("application-autoscaling.RegisterScalableTarget.MinCapacity"), doc("Fewest instances.")
    ]
    max: Annotated[
        Count, aws("application-autoscaling.RegisterScalableTarget.MaxCapacity"), doc("Most instances.")
    ]
    invocations_per_instance: Annotated[
        Positive | None, doc("Target: calls a minute and instance, over all models.")
    ] = None
    concurrent_requests_per_model: Annotated[
        Positive | None, doc("Target: requests in flight and queued, by the 10 s metric.")
    ] = None
    memory_percent: Annotated[
        Percent | None, doc("Target: memory in use; AWS advises 80 where models come and go.")
    ] = None
    scale_out_cooldown_s: Annotated[int, Meta(ge=0), doc("Seconds between two steps up.")] = 300
    scale_in_cooldown_s: Annotated[int, Meta(ge=0), doc("Seconds between two steps down.")] = 300
    scale_in: Annotated[bool, doc("false: instances are added only.")] = True


class Alarms(Part, frozen=True, kw_only=True):
    """CloudWatch alarms of a variant; those whose threshold is given are made."""

    model_latency_p99_ms: Annotated[Positive | None, doc("99th percentile of ModelLatency above this.")] = (
        None
    )
    errors_5xx_percent: Annotated[Percent | None, doc("Share of calls with a 5XX answer above this.")] = None
    errors_4xx_percent: Annotated[Percent | None, doc("Share of calls with a 4XX answer above this.")] = None
    cache_hit_percent: Annotated[
        Percent | None,
        doc(
            "Share of calls whose model was in memory below this. Rolls no update back: new fleets are empty."
        ),
    ] = None
    memory_percent: Annotated[Percent | None, doc("MemoryUtilization above this.")] = None
    disk_percent: Annotated[Percent | None, doc("DiskUtilization above this.")] = None
    minutes: Annotated[Count, Meta(le=1440), doc("Minutes in a row before an alarm.")] = 5
    notify: Annotated[
        list[str],
        aws("cloudwatch.PutMetricAlarm.AlarmActions"),
        doc("ARNs of SNS topics that are told."),
    ] = []


class VariantDescription(Part, frozen=True, kw_only=True):
    """A production variant: a fleet of equal instances. What it leaves out is the file's own."""

    name: Annotated[
        str,
        aws(_VARIANTS + "VariantName"),
        Meta(min_length=1),
        doc("Name of the variant, in metrics and logs, too."),
    ] = "AllTraffic"
    instance_type: Annotated[str, aws(_VARIANTS + "InstanceType"), doc("Such as ml.m5.xlarge.")]
    instances: Annotated[
        int,
        aws(_VARIANTS + "InitialInstanceCount"),
        doc("Number of instances; with autoscaling, at the start."),
    ] = 1
    weight: Annotated[
        float, aws(_VARIANTS + "InitialVariantWeight"), doc("Share of calls, relative to other variants.")
    ] = 1.0
    volume_gb: Annotated[
        int | None,
        aws(_VARIANTS + "VolumeSizeInGB"),
        doc("Storage of an instance for archives; not for types with NVMe of their own."),
    ] = None
    download_timeout_s: Annotated[
        int | None, aws(_VARIANTS + "ModelDataDownloadTimeoutInSeconds"), doc("Of one archive.")
    ] = None
    startup_timeout_s: Annotated[
        int | None,
        aws(_VARIANTS + "ContainerStartupHealthCheckTimeoutInSeconds"),
        doc("Until the container must answer /ping."),
    ] = None
    image: Annotated[Image | None, doc("In place of the file's.")] = None
    models: Annotated[Prefix | None, doc("In place of the file's.")] = None
    environment: Annotated[Environment | None, doc("Over the file's: a name here wins.")] = None
    autoscaling: Annotated[Autoscaling | None, doc("Left out: the number of instances is fixed.")] = None
    alarms: Annotated[Alarms | None, doc("Left out: none.")] = None


class Update(Part, frozen=True, kw_only=True):
    """How ``mmekit update`` moves traffic to a new fleet (``BlueGreenUpdatePolicy``)."""

    traffic: Annotated[
        Literal["all-at-once", "canary", "linear"], doc("In one step, in two, or in equal steps.")
    ] = "all-at-once"
    step_percent: Annotated[
        StepPercent | None, doc("Share of the new fleet in the first step, or in each. [10]")
    ] = None
    wait_s: Annotated[
        int,
        aws(_BLUE_GREEN + "TrafficRoutingConfiguration.WaitIntervalInSeconds"),
        doc("Seconds that alarms are watched after each step; above their minutes and two more."),
    ] = 600
    termination_wait_s: Annotated[
        int, aws(_BLUE_GREEN + "TerminationWaitInSeconds"), doc("Seconds until the old fleet ends.")
    ] = 0
    timeout_s: Annotated[
        int,
        aws(_BLUE_GREEN + "MaximumExecutionTimeoutInSeconds"),
        doc("Seconds of the whole update; more than all of its waits."),
    ] = 14400
    rollback_on_alarms: Annotated[
        bool, doc("The endpoint's alarms (all but cache_hit_percent) roll the update back.")
    ] = True


class Description(Part, frozen=True, kw_only=True):
    """An endpoint: the whole file."""

    name: Annotated[
        str,
        aws("sagemaker.CreateEndpoint.EndpointName"),
        Meta(
            min_length=1,
            max_length=NAME_CHARACTERS,
            extra={WHY: "SageMaker takes 63, and the names of models end with a hyphen and eight digits"},
        ),
        doc(f"Name of the endpoint, at most {NAME_CHARACTERS} characters: others are made of it."),
    ]
    image: Annotated[Image, doc("Image in ECR, by tag or digest; a tag is resolved to its digest.")]
    role: Annotated[
        str, Meta(min_length=1), doc("Execution role: its ARN, or the name of one in the caller's account.")
    ]
    models: Annotated[Prefix, doc("The S3 prefix below which archives lie; it ends with a slash.")]
    variants: Annotated[
        list[VariantDescription],
        aws("sagemaker.CreateEndpointConfig.ProductionVariants"),
        doc("One or more fleets."),
    ]
    region: Annotated[str | None, doc("AWS region. Left out: --region, AWS_REGION or the profile's.")] = None
    cache: Annotated[bool, doc("ModelCacheSetting; false for very many models that are used once each.")] = (
        True
    )
    environment: Annotated[Environment, doc("Variables of the container. No secrets: they can be read.")] = {}
    network_isolation: Annotated[bool, doc("The container has no network; archives come all the same.")] = (
        False
    )
    vpc: Annotated[Vpc | None, doc("Left out: SageMaker's own network.")] = None
    kms_key: Annotated[
        str | None,
        aws("sagemaker.CreateEndpointConfig.KmsKeyId"),
        doc("Key that encrypts the instances' volumes."),
    ] = None
    private_link: Annotated[PrivateLink | None, doc("Left out: none.")] = None
    update: Annotated[Update, doc("How updates are made.")] = Update()
    tags: Annotated[dict[str, str], doc("Tags of all that is made, beside mmekit's own.")] = {}
