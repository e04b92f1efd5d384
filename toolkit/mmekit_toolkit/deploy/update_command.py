"""``mmekit update``: changes a running endpoint into what a file describes."""

from __future__ import annotations

from typing import Any

import click

from mmekit_toolkit.aws.clients import Aws, aws_options
from mmekit_toolkit.command import Command
from mmekit_toolkit.deploy.inputs import described, description_of, dry_run_options
from mmekit_toolkit.errors import NotFound, RolledBack

_EXAMPLES = """\b
Examples:
  mmekit update endpoint.yaml --dry-run
  mmekit update endpoint.yaml
  mmekit update endpoint.yaml --instances 2
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@described
@dry_run_options
@click.option(
    "--timeout",
    "timeout_s",
    type=click.IntRange(1),
    metavar="SECONDS",
    help="Of each wait. [update.timeout_s of FILE]",
)
@aws_options
def update(
    given: tuple[str | None, dict[str, Any]],
    dry_run: bool,
    as_json: bool,
    timeout_s: int | None,
    aws: Aws,
) -> None:
    """Change a running endpoint into what FILE describes, and wait until it is.

    New fleets take over when they answer, with empty caches; numbers of instances and weights change in
    place. When SageMaker rolls back, it says why and ends with exit code 4. To go back later, update with
    the earlier file: its models and configuration are kept until `mmekit delete --unused`.
    """
    description = description_of(given)
    from mmekit_toolkit.deploy.deployment import prepare

    deployment = prepare(
        description, aws, timeout_s=timeout_s or description.update.timeout_s, wait=not dry_run
    )
    endpoint = deployment.observed.endpoint
    if endpoint is None:
        raise NotFound(f"there is no endpoint {description.name} to update: `mmekit deploy` creates it.")
    if endpoint.status == "Failed":
        raise RolledBack(
            f"the endpoint {endpoint.name} is Failed, and can only be replaced: `mmekit deploy` does that. "
            f"Reason: {endpoint.failure_reason or 'SageMaker gives none'}"
        )
    plan = deployment.plan
    if dry_run:
        click.echo("".join(f"# {line}\n" for line in plan.differences), nl=False, err=as_json)
        deployment.print_steps(as_json=as_json)
        return
    if not plan.steps:
        click.echo(f"nothing to do: {deployment.summary(endpoint)}, as described.")
        return
    for line in plan.differences:
        click.echo(line, err=True)
    after = deployment.apply()
    click.echo(f"{deployment.summary(after)}.")
    if after.config_name != endpoint.config_name:
        click.echo(f"To go back, update with the earlier file: {endpoint.config_name} is kept.", err=True)
