"""``mmekit delete``: an endpoint and what mmekit made for it, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mmekit_toolkit.aws.clients import Aws, aws_options
from mmekit_toolkit.command import Command
from mmekit_toolkit.deploy.inputs import dry_run_options, timeout_option
from mmekit_toolkit.question import confirm

if TYPE_CHECKING:
    from mmekit_toolkit.deploy.requests import Step

_EXAMPLES = """\b
Examples:
  mmekit delete churn --dry-run
  mmekit delete churn --unused --yes
  mmekit delete endpoint.yaml --yes
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("endpoint", metavar="ENDPOINT")
@click.option("--unused", is_flag=True, help="Only models and configurations that the endpoint does not run.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@dry_run_options
@timeout_option
@aws_options
def delete(
    endpoint: str, unused: bool, yes: bool, dry_run: bool, as_json: bool, timeout_s: int, aws: Aws
) -> None:
    """Delete ENDPOINT, its configurations, models, alarms, scaling and VPC endpoints.

    ENDPOINT is a name or the file of one. Only what mmekit has tagged as the endpoint's own is deleted, after
    a question. Archives, images, log groups and roles stay.
    """
    from mmekit_toolkit.deploy import deletion, requests
    from mmekit_toolkit.deploy.applying import Applying
    from mmekit_toolkit.deploy.progress import Progress
    from mmekit_toolkit.deploy.reference import resolve
    from mmekit_toolkit.deploy.surroundings import is_local
    from mmekit_toolkit.deploy.waiting import Waiting

    reference = resolve(endpoint)
    aws = aws.in_region(reference.region)
    waiting = Waiting(aws, Progress(), timeout_s)
    if not dry_run:
        waiting.settled(reference.name)  # SageMaker refuses to delete what it is changing
    owned = deletion.find(reference.name, aws, local=is_local(aws))
    for remark in owned.remarks:
        click.echo(f"note: {remark}", err=True)
    steps = deletion.unused(owned) if unused else deletion.everything(owned)
    if dry_run:
        click.echo(requests.as_json(steps) if as_json else requests.as_commands(steps, aws))
        return
    if not steps:
        what = "unused of" if unused else "of"
        click.echo(f"nothing to do: nothing {what} {reference.name} is there in {aws.region_name}.")
        return
    _ask(steps, owned.vpc_endpoints and not unused, yes=yes)
    Applying(reference.name, steps, waiting).run()
    click.echo(f"{reference.name}: {'unused definitions are' if unused else 'the endpoint is'} deleted.")
    if not unused:
        click.echo(
            f"Left as they are: archives in S3, images in ECR, the role, and the log group "
            f"/aws/sagemaker/Endpoints/{reference.name}.",
            err=True,
        )


def _ask(steps: Sequence[Step], shared: object, *, yes: bool) -> None:
    """Show what is to be deleted and ask; without a terminal, refuse to guess."""
    click.echo("This is to be done:\n" + "\n".join(f"  {step.why}" for step in steps), err=True)
    if shared:
        click.echo("Other endpoints may be called through these VPC endpoints, too.", err=True)
    confirm("Do it?", yes=yes)
