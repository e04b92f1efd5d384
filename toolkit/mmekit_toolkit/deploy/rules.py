"""What parts of a description must be to each other, and limits that no type can state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mmekit_toolkit.deploy import shapes, traffic
from mmekit_toolkit.deploy.alarms import rollback_alarms
from mmekit_toolkit.deploy.description import (
    Autoscaling,
    Description,
    PrivateLink,
    Update,
    VariantDescription,
)
from mmekit_toolkit.deploy.shapes import Path

#: Bytes of one variable's name or value, and of all of a container's (contract.md 1.1: ContainerDefinition).
_VARIABLE_BYTES = 1024
_ENVIRONMENT_BYTES = 32 * 1024
#: Variables of a container.
_VARIABLES = 100
#: Alarms that may roll an update back (botocore: AutoRollbackConfig).
_ROLLBACK_ALARMS = 10
#: Tags of a resource; two are mmekit's own.
_TAGS = 50 - 2
#: AWS takes linear steps of at least so much (botocore: LinearStepSize).
_LINEAR_PERCENT = 10
#: Targets that autoscaling can have.
_TARGETS = ("invocations_per_instance", "concurrent_requests_per_model", "memory_percent")

#: Path and what is wrong there.
Complaint = tuple[Path, str]


def complaints(description: Description) -> Iterator[Complaint]:
    """Yield what is wrong with a description whose types are right."""
    yield from _role(description.role)
    yield from _region(description.region)
    yield from _environment(description.environment, ("environment",))
    yield from _tags(description.tags)
    yield from _update(description.update)
    yield from _variants(description)
    if description.private_link:
        yield from _private_link(description.private_link)


def _role(role: str) -> Iterator[Complaint]:
    if role.startswith("arn:"):
        shape = shapes.member("sagemaker", "CreateModel", "ExecutionRoleArn")
    else:
        shape = shapes.member("iam", "GetRole", "RoleName")
    for _, text in shapes.violations(shape, role):
        yield ("role",), f"{text}; expected a role's ARN or name."


def _region(region: str | None) -> Iterator[Complaint]:
    if region is not None and shapes.partition(region) is None:
        yield ("region",), f'expected a region such as eu-west-1, found "{region}".'


def _environment(environment: Mapping[str, str], path: Path) -> Iterator[Complaint]:
    for name, value in environment.items():
        if (size := max(len(name.encode()), len(value.encode()))) > _VARIABLE_BYTES:
            yield (
                (*path, name),
                f"expected a name and a value of at most {_VARIABLE_BYTES} bytes, found {size}.",
            )


def _tags(tags: Mapping[str, str]) -> Iterator[Complaint]:
    if len(tags) > _TAGS:
        yield ("tags",), f"expected at most {_TAGS} tags, found {len(tags)}: AWS takes 50, two are mmekit's."
    key_shape = shapes.member("sagemaker", "CreateModel", "Tags[].Key")
    value_shape = shapes.member("sagemaker", "CreateModel", "Tags[].Value")
    for key, value in tags.items():
        if key.lower().startswith(("aws:", "mmekit:")):
            yield ("tags", key), "names that begin with aws: or mmekit: belong to AWS and to mmekit."
        if text := shapes.violation(key_shape, key):
            yield ("tags", key), f"the name: {text}"
        if text := shapes.violation(value_shape, value):
            yield ("tags", key), text


def _update(update: Update) -> Iterator[Complaint]:
    step = update.step_percent
    if update.traffic == "all-at-once" and step is not None:
        yield ("update", "step_percent"), "all-at-once has no steps: set traffic to canary or linear."
    if update.traffic == "linear" and step is not None and step < _LINEAR_PERCENT:
        yield (
            ("update", "step_percent"),
            f"expected at least {_LINEAR_PERCENT} with traffic: linear, found {step}.",
        )
    if (waits_s := traffic.waits_s(update)) >= update.timeout_s:
        yield (
            ("update", "timeout_s"),
            f"expected more than {waits_s}, as long as all waits of the update take, "
            f"found {update.timeout_s}.",
        )


def _variants(description: Description) -> Iterator[Complaint]:
    seen: dict[str, int] = {}
    for number, variant in enumerate(description.variants):
        path: Path = ("variants", number)
        if variant.name in seen:
            yield (*path, "name"), f'"{variant.name}" is the name of variants[{seen[variant.name]}], too.'
        seen.setdefault(variant.name, number)
        yield from _variant(variant, path)
        yield from _whole_environment(description, variant, path)
    if not any(variant.weight for variant in description.variants):
        yield ("variants",), "expected a weight above 0 for one variant at least."
    alarms = rollback_alarms(description)
    if description.update.rollback_on_alarms and len(alarms) > _ROLLBACK_ALARMS:
        yield (
            ("update", "rollback_on_alarms"),
            f"AWS rolls back on at most {_ROLLBACK_ALARMS} alarms; these are {len(alarms)}. Set it to false, "
            "or leave some alarms out.",
        )


def _variant(variant: VariantDescription, path: Path) -> Iterator[Complaint]:
    if variant.environment:
        yield from _environment(variant.environment, (*path, "environment"))
    if scaling := variant.autoscaling:
        yield from _autoscaling(scaling, variant.instances, path)
    for number, topic in enumerate(variant.alarms.notify if variant.alarms else []):
        if not topic.startswith("arn:"):
            yield (*path, "alarms", "notify", number), f'expected the ARN of an SNS topic, found "{topic}".'


def _whole_environment(
    description: Description, variant: VariantDescription, path: Path
) -> Iterator[Complaint]:
    whole = {**description.environment, **(variant.environment or {})}
    where = (*path, "environment") if variant.environment else ("environment",)
    if len(whole) > _VARIABLES:
        yield where, f"expected at most {_VARIABLES} variables, found {len(whole)}."
    size = sum(len(name.encode()) + len(value.encode()) for name, value in whole.items())
    if size > _ENVIRONMENT_BYTES:
        yield where, f"expected at most {_ENVIRONMENT_BYTES} bytes of names and values, found {size}."


def _autoscaling(scaling: Autoscaling, instances: int, path: Path) -> Iterator[Complaint]:
    where = (*path, "autoscaling")
    if scaling.min > scaling.max:
        yield (*where, "max"), f"expected at least min, which is {scaling.min}, found {scaling.max}."
    elif not scaling.min <= instances <= scaling.max:
        yield (
            (*path, "instances"),
            f"expected {scaling.min} to {scaling.max}, as autoscaling has it, found {instances}.",
        )
    targets = [name for name in _TARGETS if getattr(scaling, name) is not None]
    if len(targets) != 1:
        found = " and ".join(targets) or "none"
        yield where, f"expected exactly one target of {', '.join(_TARGETS)}, found {found}."


def _private_link(link: PrivateLink) -> Iterator[Complaint]:
    interfaces = [service for service in link.services if service != "s3"]
    needed: Mapping[str, tuple[list[str], bool, str]] = {
        "subnets": (link.subnets, bool(interfaces), " and ".join(interfaces)),
        "security_groups": (link.security_groups, bool(interfaces), " and ".join(interfaces)),
        "route_tables": (link.route_tables, "s3" in link.services, "s3"),
    }
    for name, (given, used, service) in needed.items():
        if used and not given:
            yield ("private_link", name), f"is missing; the service {service} needs it."
    if len(set(link.services)) != len(link.services):
        yield ("private_link", "services"), "a service is there twice."
