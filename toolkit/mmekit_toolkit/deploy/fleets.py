"""The steps that bring an endpoint's fleets to what is described: definitions, endpoint, counts, tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmekit_toolkit.deploy import definitions, differences, ownership
from mmekit_toolkit.deploy.description import Description
from mmekit_toolkit.deploy.draft import Draft
from mmekit_toolkit.deploy.observed import Endpoint, Observed
from mmekit_toolkit.deploy.requests import Request, Wait
from mmekit_toolkit.deploy.surroundings import Surroundings
from mmekit_toolkit.deploy.traffic import deployment_config


class Fleets:
    """Adds steps to a draft, a method for each place in its order."""

    def __init__(
        self, description: Description, surroundings: Surroundings, observed: Observed, draft: Draft
    ) -> None:
        self._description = description
        self._surroundings = surroundings
        self._observed = observed
        self._draft = draft
        self._wanted = definitions.define(description, surroundings, _counts_to_keep(description, observed))
        self._changes = self._find_changes()

    def define(self) -> None:
        """Create models and configuration, also where they were deleted under an endpoint that stays."""
        for name, model in self._wanted.models.items():
            if name not in self._observed.models:
                self._draft.add(definitions.create_model(model))
        serving = self._observed.serving
        if serving and not self._changes and serving.config_name != self._wanted.config_name:
            return  # counts or weights were changed in place: the configuration in use has earlier ones
        if self._wanted.config_name not in self._observed.configs:
            self._draft.add(definitions.create_config(self._wanted.config))

    def bring(self) -> None:
        """Create the endpoint, update it, or change counts and weights in place; then wait."""
        serving = self._observed.serving
        if serving is None:
            self._create()
        elif self._changes:
            self._update(serving)
        else:
            self._scale_in_place(serving)

    def tag(self) -> None:
        """Add tags that resources in use lack; those of others on them stay."""
        wanted = self._description.tags
        for arn in self._arns_in_use():
            there = self._observed.tags.get(arn, {})
            missing = {key: value for key, value in wanted.items() if there.get(key) != value}
            if missing:
                tags = [{"Key": key, "Value": value} for key, value in missing.items()]
                self._draft.differs(f"tags of {arn}: {', '.join(missing)}")
                parameters = {"ResourceArn": arn, "Tags": tags}
                self._draft.add(Request("sagemaker", "AddTags", parameters, f"tag {arn}"))

    def _find_changes(self) -> list[str]:
        """Return how the fleets that serve differ from those that are wanted."""
        endpoint = self._observed.serving
        if endpoint is None or endpoint.config_name == self._wanted.config_name:
            return []
        current = self._observed.config
        if current is not None and definitions.same_fleets(current, self._wanted.config):
            return []
        return differences.of_fleets(self._wanted, self._observed)

    def _create(self) -> None:
        name = self._description.name
        endpoint = self._observed.endpoint
        if endpoint is not None and endpoint.status == "Failed":
            why = f"delete the endpoint {name}, which is Failed: it can serve nothing and cannot be updated"
            self._draft.add(Request("sagemaker", "DeleteEndpoint", {"EndpointName": name}, why))
        if endpoint is not None:
            self._draft.add(Wait("endpoint_deleted", name, f"wait until {name} is gone"))
        parameters = {
            "EndpointName": name,
            "EndpointConfigName": self._wanted.config_name,
            "Tags": ownership.tags(name, self._description.tags),
        }
        self._draft.add(Request("sagemaker", "CreateEndpoint", parameters, f"create the endpoint {name}"))
        self._wait()

    def _update(self, endpoint: Endpoint) -> None:
        for line in self._changes:
            self._draft.differs(line)
        name = self._description.name
        parameters: dict[str, Any] = {
            "EndpointName": name,
            "EndpointConfigName": self._wanted.config_name,
            "RetainAllVariantProperties": True,
        }
        if changed := self._changed_properties(endpoint):
            parameters["ExcludeRetainedVariantProperties"] = [
                {"VariantPropertyType": kind} for kind in changed
            ]
        why = f"update the endpoint {name}"
        if not self._keeps_variants(endpoint):
            # "Deployment guardrails: Exclusions": the new configuration must have the old variants' names.
            why += ", all at once and without its alarms, as AWS has it where variants come or go"
        elif not self._surroundings.local:
            parameters["DeploymentConfig"] = deployment_config(self._description)
        self._draft.add(Request("sagemaker", "UpdateEndpoint", parameters, why))
        self._wait()

    def _keeps_variants(self, endpoint: Endpoint) -> bool:
        return set(endpoint.counts) == {variant.name for variant in self._description.variants}

    def _changed_properties(self, endpoint: Endpoint) -> list[str]:
        """Return what the new fleets take from the configuration, not from the fleets that they replace."""
        counts, weights = _fixed_counts(self._description), _weights(self._description)
        changed = []
        if _other(counts, endpoint.counts):
            changed.append("DesiredInstanceCount")
        if _other(weights, endpoint.weights):
            changed.append("DesiredWeight")
        return changed

    def _scale_in_place(self, endpoint: Endpoint) -> None:
        counts = _other(_fixed_counts(self._description), endpoint.counts)
        weights = _other(_weights(self._description), endpoint.weights)
        if not counts and not weights:
            return
        for variant, count in counts.items():
            self._draft.differs(f"variant {variant}: instances: {endpoint.counts[variant]} → {count}")
        for variant, weight in weights.items():
            self._draft.differs(f"variant {variant}: weight: {endpoint.weights[variant]:g} → {weight:g}")
        entries = [
            {
                "VariantName": variant,
                **({"DesiredInstanceCount": counts[variant]} if variant in counts else {}),
                **({"DesiredWeight": weights[variant]} if variant in weights else {}),
            }
            for variant in dict.fromkeys([*counts, *weights])
        ]
        parameters = {"EndpointName": endpoint.name, "DesiredWeightsAndCapacities": entries}
        why = "change instances and weights in place"
        self._draft.add(Request("sagemaker", "UpdateEndpointWeightsAndCapacities", parameters, why))
        self._wait(endpoint.config_name, counts, weights)

    def _wait(
        self,
        config: str | None = None,
        counts: Mapping[str, int] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        name = self._description.name
        why = f"wait until {name} is in service"
        wanted = config or self._wanted.config_name
        self._draft.add(Wait("endpoint_in_service", name, why, wanted, counts or {}, weights or {}))

    def _arns_in_use(self) -> list[str]:
        running = self._observed.serving.config_name if self._observed.serving and not self._changes else None
        kept = [self._observed.configs.get(running or self._wanted.config_name)]
        kept += [self._observed.models.get(name) for name in self._wanted.models]
        endpoint = [self._observed.serving.arn] if self._observed.serving else []
        return endpoint + [resource.arn for resource in kept if resource is not None]


def _counts_to_keep(description: Description, observed: Observed) -> dict[str, int]:
    """Return the counts of autoscaling's variants that a new configuration must have.

    UpdateEndpoint retains the counts of all variants or of none. Where the file changes one that is fixed,
    none are retained, and those that autoscaling has chosen must stand in the configuration.
    """
    endpoint = observed.endpoint
    if endpoint is None or not _other(_fixed_counts(description), endpoint.counts):
        return {}
    scaled = {variant.name for variant in description.variants if variant.autoscaling}
    return {name: count for name, count in endpoint.counts.items() if name in scaled}


def _fixed_counts(description: Description) -> dict[str, int]:
    return {v.name: v.instances for v in description.variants if v.autoscaling is None}


def _weights(description: Description) -> dict[str, float]:
    return {variant.name: variant.weight for variant in description.variants}


def _other(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
    """Return those wanted values that are there with another value."""
    return {name: value for name, value in wanted.items() if name in there and there[name] != value}
