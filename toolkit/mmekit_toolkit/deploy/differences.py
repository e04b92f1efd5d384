"""How what runs differs from what a file describes, in the file's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmekit_toolkit.deploy.definitions import Definitions, Parameters
from mmekit_toolkit.deploy.observed import Described, Observed

#: Member of a model, a container or a variant → what the file calls it. Others keep AWS's name.
_WORDS = {
    "Image": "image",
    "ModelDataUrl": "models",
    "ModelCacheSetting": "cache",
    "ExecutionRoleArn": "role",
    "EnableNetworkIsolation": "network_isolation",
    "Subnets": "vpc.subnets",
    "SecurityGroupIds": "vpc.security_groups",
    "InstanceType": "instance_type",
    "VolumeSizeInGB": "volume_gb",
    "ModelDataDownloadTimeoutInSeconds": "download_timeout_s",
    "ContainerStartupHealthCheckTimeoutInSeconds": "startup_timeout_s",
}
#: Members that make no difference here: counts and weights change in place, names follow from content.
_LEFT_OUT = {"VariantName", "ModelName", "InitialInstanceCount", "InitialVariantWeight", "Mode"}
_NOT_SET = "nothing"


def of_fleets(wanted: Definitions, observed: Observed) -> list[str]:
    """Return the differences that need new fleets, one a line: ``variant A: image x → y``."""
    current = observed.config
    if current is None:
        return ["the configuration that the endpoint runs was deleted"]
    before = {variant["VariantName"]: variant for variant in current["ProductionVariants"]}
    after = {variant["VariantName"]: variant for variant in wanted.config["ProductionVariants"]}
    lines = [f"variant {name}: to be removed" for name in before if name not in after]
    for name, variant in after.items():
        if name not in before:
            lines.append(f"variant {name}: to be added")
            continue
        lines += [f"variant {name}: {line}" for line in _changes(before[name], variant)]
        old = observed.models.get(str(before[name].get("ModelName")))
        if old is None:
            lines.append(f"variant {name}: its model {before[name].get('ModelName')} was deleted")
        elif old.name != wanted.model_of[name]:
            changes = list(_changes(old.described, wanted.models[wanted.model_of[name]]))
            lines += [f"variant {name}: {line}" for line in changes]
    if current.get("KmsKeyId") != wanted.config.get("KmsKeyId"):
        lines.append(_line("kms_key", current.get("KmsKeyId"), wanted.config.get("KmsKeyId")))
    return lines or ["the definition of the fleets"]


def _changes(before: Described, after: Parameters) -> Iterator[str]:
    old, new = dict(_flat(before, after)), dict(_flat(after, after))
    for word in dict.fromkeys([*new, *old]):
        if old.get(word) != new.get(word):
            yield _line(word, old.get(word), new.get(word))


def _flat(described: Mapping[str, Any], like: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield words and values, of members that ``like`` has; what else is there are AWS's defaults."""
    for member, value in described.items():
        if member == "Environment":
            yield from ((f"environment.{name}", content) for name, content in value.items())
        elif member in _LEFT_OUT or (member not in like and member not in _WORDS):
            continue
        elif isinstance(value, Mapping):
            yield from _flat(value, like.get(member, {}))
        elif member != "Tags":
            yield _WORDS.get(member, member), value


def _line(word: str, before: Any, after: Any) -> str:
    return f"{word}: {_shown(before)} → {_shown(after)}"


def _shown(value: Any) -> str:
    if value is None:
        return _NOT_SET
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
