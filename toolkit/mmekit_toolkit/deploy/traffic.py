"""How an update moves traffic, as UpdateEndpoint's ``DeploymentConfig``."""

from __future__ import annotations

import math
from typing import Any

from mmekit_toolkit.deploy.alarms import rollback_alarms
from mmekit_toolkit.deploy.description import Description, Update

_TYPES = {"all-at-once": "ALL_AT_ONCE", "canary": "CANARY", "linear": "LINEAR"}
#: Percent of a step that the file does not name.
_STEP_PERCENT = 10


def waits_s(update: Update) -> int:
    """Return how long an update waits in all, in seconds; what its instances need to start comes to it."""
    share = update.step_percent or _STEP_PERCENT
    steps = {"all-at-once": 1, "canary": 2, "linear": math.ceil(100 / share)}[update.traffic]
    return steps * update.wait_s + update.termination_wait_s


def deployment_config(description: Description) -> dict[str, Any]:
    """Return the DeploymentConfig of an update."""
    update = description.update
    config: dict[str, Any] = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": _routing(update),
            "TerminationWaitInSeconds": update.termination_wait_s,
            "MaximumExecutionTimeoutInSeconds": update.timeout_s,
        }
    }
    names = rollback_alarms(description)
    if update.rollback_on_alarms and names:
        config["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in names]}
    return config


def _routing(update: Update) -> dict[str, Any]:
    routing: dict[str, Any] = {
        "Type": _TYPES[update.traffic],
        "WaitIntervalInSeconds": update.wait_s,
    }
    size = {"Type": "CAPACITY_PERCENT", "Value": update.step_percent or _STEP_PERCENT}
    if update.traffic == "canary":
        routing["CanarySize"] = size
    if update.traffic == "linear":
        routing["LinearStepSize"] = size
    return routing
