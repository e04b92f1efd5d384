"""The steps for what stands around fleets: VPC endpoints, alarms, autoscaling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmekit_toolkit.deploy import alarms, private_link, scaling
from mmekit_toolkit.deploy.description import Autoscaling, Description
from mmekit_toolkit.deploy.draft import Draft
from mmekit_toolkit.deploy.observed import Observed


class Companions:
    """Adds steps to a draft, a method for each place in its order."""

    def __init__(self, description: Description, observed: Observed, draft: Draft) -> None:
        self._description = description
        self._observed = observed
        self._draft = draft
        self._deregistered: set[str] = set()

    def add_private_link(self, region: str) -> None:
        """Create the VPC endpoints that are not there."""
        wanted = private_link.endpoints(self._description, region)
        for service, parameters in wanted.items():
            if service not in self._observed.vpc_endpoints:
                self._draft.add(private_link.create(parameters))

    def set_alarms(self) -> None:
        """Create alarms, and change those that are otherwise; updates need them before."""
        for name, alarm in alarms.alarms(self._description).items():
            there = self._observed.alarms.get(name)
            if there is None:
                self._draft.add(alarms.put(alarm))
            elif not covers(there, {key: value for key, value in alarm.items() if key != "Tags"}):
                self._draft.differs(f"the alarm {name}")
                self._draft.add(alarms.put(alarm))

    def delete_old_alarms(self) -> None:
        """Delete alarms that the file does not have any more."""
        wanted = alarms.alarms(self._description)
        old = [name for name in self._observed.alarms if name not in wanted]
        if old:
            for name in old:
                self._draft.differs(f"the alarm {name}: not in the file")
            self._draft.add(alarms.delete(old))

    def end_scaling(self) -> None:
        """End autoscaling that is not wanted any more, and where AWS would refuse a change of the fleet."""
        variants = {variant.name: variant for variant in self._description.variants}
        types = _instance_types(self._observed)
        for name in self._observed.targets:
            variant = variants.get(name)
            if variant is None or variant.autoscaling is None:
                if name not in self._observed.policies and variant is not None:
                    continue  # somebody else's: nothing says that it is ours
                self._draft.differs(f"variant {name}: autoscaling: not in the file")
            elif types.get(name, variant.instance_type) == variant.instance_type:
                continue
            self._draft.add(scaling.deregister(self._description.name, name))
            self._deregistered.add(name)

    def scale(self) -> None:
        """Register variants with autoscaling, or change how they scale."""
        for variant in self._description.variants:
            if variant.autoscaling is not None:
                self._set_scaling(variant.name, variant.autoscaling)

    def _set_scaling(self, variant: str, wanted: Autoscaling) -> None:
        name = self._description.name
        gone = variant in self._deregistered or self._observed.serving is None
        for request, there in (
            (scaling.register(name, variant, wanted), self._observed.targets.get(variant)),
            (scaling.put_policy(name, variant, wanted), self._observed.policies.get(variant)),
        ):
            if gone or there is None:
                self._draft.add(request)
            elif not covers(there, request.parameters):
                self._draft.differs(f"variant {variant}: autoscaling")
                self._draft.add(request)


def covers(there: Any, wanted: Any) -> bool:
    """Say whether something described has all that is wanted; more, such as ARNs and dates, may be there."""
    if isinstance(wanted, Mapping):
        return isinstance(there, Mapping) and all(
            covers(there.get(member), value) or (value == [] and member not in there)
            for member, value in wanted.items()
        )
    if isinstance(wanted, list):
        if not isinstance(there, list) or len(there) != len(wanted):
            return False
        pairs = zip(sorted(there, key=_identity), sorted(wanted, key=_identity), strict=True)
        return all(covers(*pair) for pair in pairs)
    return bool(there == wanted)


def _identity(entry: Any) -> str:
    return str(entry.get("Id") or entry.get("Name")) if isinstance(entry, Mapping) else str(entry)


def _instance_types(observed: Observed) -> dict[str, str]:
    variants: Iterable[Mapping[str, Any]] = (observed.config or {}).get("ProductionVariants", [])
    return {variant["VariantName"]: variant["InstanceType"] for variant in variants}
