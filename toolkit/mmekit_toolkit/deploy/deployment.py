"""What ``deploy`` and ``update`` share: look, plan, and take the steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click

from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.deploy import definitions, requests, surroundings
from mmekit_toolkit.deploy.applying import Applying
from mmekit_toolkit.deploy.description import Description
from mmekit_toolkit.deploy.draft import Draft
from mmekit_toolkit.deploy.observed import Endpoint, Observed
from mmekit_toolkit.deploy.observing import describe_endpoint, observe
from mmekit_toolkit.deploy.plan import plan
from mmekit_toolkit.deploy.progress import Progress
from mmekit_toolkit.deploy.surroundings import Surroundings
from mmekit_toolkit.deploy.waiting import Waiting
from mmekit_toolkit.errors import RolledBack

#: States that neither end by themselves nor can be changed.
_STUCK = {"OutOfService", "UpdateRollbackFailed"}
#: The first minute is a part of one only, and CloudWatch has a minute's metrics about a minute later.
_ALARM_DELAY_MINUTES = 2


@dataclass(frozen=True)
class Deployment:
    """A description, what is there, and what is to be done."""

    description: Description
    aws: Aws
    waiting: Waiting
    surroundings: Surroundings
    observed: Observed
    plan: Draft

    def print_steps(self, *, as_json: bool) -> None:
        """Print the steps on stdout, as commands or as JSON."""
        steps = self.plan.steps
        click.echo(requests.as_json(steps) if as_json else requests.as_commands(steps, self.aws))

    def apply(self) -> Endpoint:
        """Take the steps; return the endpoint as it is then. Raises what `Applying.run` raises."""
        Applying(self.description.name, self.plan.steps, self.waiting).run()
        return Endpoint(describe_endpoint(self.aws, self.description.name) or {})

    def summary(self, endpoint: Endpoint) -> str:
        """Return ``churn is InService: AllTraffic 1 × ml.m5.xlarge``."""
        counts = endpoint.counts
        fleets = [
            f"{variant.name} {counts.get(variant.name, variant.instances)} × {variant.instance_type}"
            for variant in self.description.variants
        ]
        return f"{endpoint.name} is {endpoint.status}: {', '.join(fleets)}"


def prepare(description: Description, aws: Aws, *, timeout_s: float, wait: bool) -> Deployment:
    """Look at what is there and plan; remarks go to stderr. With ``wait``, a change under way ends first.

    Raises
    ------
    ToolkitError
        When something is wrong with what the description names, or is there and is not ours.
    BadDescription
        When AWS would refuse a request of the plan.
    RolledBack
        When the endpoint is in a state that cannot be changed.
    """
    aws = aws.in_region(description.region)
    waiting = Waiting(aws, Progress(), timeout_s)
    around = surroundings.look(description, aws)
    for remark in (*around.remarks, *_left_out(description, around)):
        click.echo(f"note: {remark}", err=True)
    if wait:
        waiting.settled(description.name)
    wanted = definitions.define(description, around)
    observed = observe(description, wanted, aws, local=around.local)
    if observed.endpoint and observed.endpoint.status in _STUCK:
        raise RolledBack(
            f"the endpoint {description.name} is {observed.endpoint.status} and cannot be changed "
            f"({observed.endpoint.failure_reason or 'SageMaker gives no reason'}). "
            f"`mmekit delete {description.name}` and `mmekit deploy` make it anew."
        )
    if observed.endpoint and observed.endpoint.is_moving:
        click.echo(f"note: {description.name} is {observed.endpoint.status} at the moment.", err=True)
    planned = plan(description, around, observed)
    requests.check(planned.requests)
    for remark in guard_remarks(description, observed, planned):
        click.echo(f"note: {remark}", err=True)
    return Deployment(description, aws, waiting, around, observed, planned)


def guard_remarks(description: Description, observed: Observed, planned: Draft) -> Iterator[str]:
    """Yield why alarms would roll an update back whatever it brings, or come too late to do it."""
    names = {
        alarm["AlarmName"]
        for request in planned.requests
        for alarm in request.parameters.get("DeploymentConfig", {})
        .get("AutoRollbackConfiguration", {})
        .get("Alarms", [])
    }
    for name in sorted(names):
        # "Auto-Rollback Configuration": an alarm that the old fleet trips ends the deployment, too.
        if observed.alarms.get(name, {}).get("StateValue") == "ALARM":
            yield (
                f"the alarm {name} is in ALARM, and SageMaker rolls updates back while it is. To update all "
                "the same, set update.rollback_on_alarms to false."
            )
    minutes = max((variant.alarms.minutes for variant in description.variants if variant.alarms), default=0)
    least_s = 60 * (minutes + _ALARM_DELAY_MINUTES)
    if names and description.update.wait_s < least_s:
        yield (
            f"alarms that take {minutes} minutes come too late to roll an update back: update.wait_s is "
            f"{description.update.wait_s}. Set it to {least_s} at least, or alarms' minutes to fewer."
        )


def _left_out(description: Description, around: Surroundings) -> Iterator[str]:
    """Yield what the description has and a local endpoint has not."""
    if not around.local:
        return
    if any(variant.autoscaling for variant in description.variants):
        yield "autoscaling is left out: a local endpoint has as many instances as the file says."
    if description.private_link:
        yield "private_link is left out: a local endpoint has no VPC."
    if description.update != type(description.update)():
        yield "update is left out: a local endpoint replaces all instances at once."
