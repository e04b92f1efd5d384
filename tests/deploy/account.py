"""SageMaker and what stands around it as a value, with the rules that make the order of requests matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmekit_toolkit.deploy.observed import Endpoint, Observed, Resource
from mmekit_toolkit.deploy.requests import Request
from tests.deploy.support import arn

Parameters = Mapping[str, Any]


class Refused(Exception):
    """Raised where AWS would refuse a request."""


class Account:
    """Performs requests one by one; `observed` is what Describe and List calls would show."""

    def __init__(self) -> None:
        self.models: dict[str, Parameters] = {}
        self.configs: dict[str, Parameters] = {}
        self.endpoint: dict[str, Any] | None = None
        self.targets: dict[str, Parameters] = {}
        self.policies: dict[str, Parameters] = {}
        self.alarms: dict[str, Parameters] = {}

    def perform(self, request: Request) -> None:
        """Do what a request says. Raises Refused."""
        getattr(self, f"_{request.operation}")(request.parameters)

    def autoscale(self, variant: str, count: int) -> None:
        """Do what Application Auto Scaling does at any time, within its limits."""
        if variant in self.policies and self.endpoint is not None:
            target = self.targets[variant]
            count = min(max(count, target["MinCapacity"]), target["MaxCapacity"])
            self._variants()[variant]["DesiredInstanceCount"] = count

    def observed(self) -> Observed:
        """Return all that is there."""
        return Observed(
            endpoint=Endpoint(self.endpoint) if self.endpoint else None,
            models={name: Resource(name, arn(name), model) for name, model in self.models.items()},
            configs={name: Resource(name, arn(name), config) for name, config in self.configs.items()},
            targets=dict(self.targets),
            policies=dict(self.policies),
            alarms=dict(self.alarms),
        )

    # --- SageMaker -------------------------------------------------------------------------------

    def _CreateModel(self, given: Parameters) -> None:
        _insist(given["ModelName"] not in self.models, "the model is there")
        self.models[given["ModelName"]] = given

    def _CreateEndpointConfig(self, given: Parameters) -> None:
        _insist(given["EndpointConfigName"] not in self.configs, "the configuration is there")
        names = {variant["ModelName"] for variant in given["ProductionVariants"]}
        _insist(names <= self.models.keys(), "a model is not there")
        self.configs[given["EndpointConfigName"]] = given

    def _CreateEndpoint(self, given: Parameters) -> None:
        _insist(self.endpoint is None, "the endpoint is there")
        config = self._config(given)
        self.endpoint = {
            "EndpointName": given["EndpointName"],
            "EndpointArn": arn(given["EndpointName"]),
            "EndpointStatus": "InService",
            "EndpointConfigName": given["EndpointConfigName"],
            "ProductionVariants": [_started(variant) for variant in config["ProductionVariants"]],
        }

    def _UpdateEndpoint(self, given: Parameters) -> None:
        assert self.endpoint
        config, before = self._config(given), self._variants()
        types = {
            variant["VariantName"]: variant["InstanceType"]
            for variant in self.configs[self.endpoint["EndpointConfigName"]]["ProductionVariants"]
        }
        wanted = {variant["VariantName"]: variant["InstanceType"] for variant in config["ProductionVariants"]}
        for variant in self.targets:
            _insist(wanted.get(variant) == types[variant], f"{variant} is registered with autoscaling")
        _insist(
            "DeploymentConfig" not in given or wanted.keys() == types.keys(),
            "guardrails need a configuration with the same variants",
        )
        alarms = given.get("DeploymentConfig", {}).get("AutoRollbackConfiguration", {}).get("Alarms", [])
        for alarm in alarms:
            _insist(alarm["AlarmName"] in self.alarms, "an alarm is not there")
        after = [_started(variant) for variant in config["ProductionVariants"]]
        if given.get("RetainAllVariantProperties"):
            excluded = {
                kind["VariantPropertyType"] for kind in given.get("ExcludeRetainedVariantProperties", [])
            }
            for variant in after:
                for member in {"DesiredInstanceCount", "DesiredWeight"} - excluded:
                    old = before.get(variant["VariantName"], variant)
                    variant[member] = old[member]
        self.endpoint["EndpointConfigName"] = given["EndpointConfigName"]
        self.endpoint["ProductionVariants"] = after

    def _UpdateEndpointWeightsAndCapacities(self, given: Parameters) -> None:
        for entry in given["DesiredWeightsAndCapacities"]:
            self._variants()[entry["VariantName"]].update(entry)

    def _config(self, given: Parameters) -> Parameters:
        _insist(given["EndpointConfigName"] in self.configs, "the configuration is not there")
        return self.configs[given["EndpointConfigName"]]

    def _variants(self) -> dict[str, dict[str, Any]]:
        assert self.endpoint
        return {variant["VariantName"]: variant for variant in self.endpoint["ProductionVariants"]}

    # --- autoscaling and alarms ------------------------------------------------------------------

    def _RegisterScalableTarget(self, given: Parameters) -> None:
        variant = _variant(given)
        _insist(variant in self._variants(), "there is no such variant")
        self.targets[variant] = given
        count = self._variants()[variant]
        count["DesiredInstanceCount"] = min(
            max(count["DesiredInstanceCount"], given["MinCapacity"]), given["MaxCapacity"]
        )

    def _PutScalingPolicy(self, given: Parameters) -> None:
        _insist(_variant(given) in self.targets, "the target is not registered")
        self.policies[_variant(given)] = given

    def _DeregisterScalableTarget(self, given: Parameters) -> None:
        _insist(_variant(given) in self.targets, "the target is not registered")
        del self.targets[_variant(given)]
        self.policies.pop(_variant(given), None)

    def _PutMetricAlarm(self, given: Parameters) -> None:
        self.alarms[given["AlarmName"]] = given

    def _DeleteAlarms(self, given: Parameters) -> None:
        for name in given["AlarmNames"]:
            del self.alarms[name]


def _started(variant: Parameters) -> dict[str, Any]:
    return {
        "VariantName": variant["VariantName"],
        "DesiredInstanceCount": variant["InitialInstanceCount"],
        "DesiredWeight": variant["InitialVariantWeight"],
    }


def _variant(given: Parameters) -> str:
    return str(given["ResourceId"].rpartition("/")[2])


def _insist(right: bool, wrong: str) -> None:
    if not right:
        raise Refused(wrong)
