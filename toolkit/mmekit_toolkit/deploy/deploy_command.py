"""``mmekit deploy``: an endpoint as a file describes it; what is missing is created."""

from __future__ import annotations

from typing import Any

import click

from mmekit_toolkit.aws.clients import Aws, aws_options
from mmekit_toolkit.command import Command
from mmekit_toolkit.deploy.inputs import described, description_of, dry_run_options, timeout_option
from mmekit_toolkit.errors import FaultsFound

_EXAMPLES = """\b
Examples:
  mmekit deploy endpoint.yaml --dry-run
  mmekit deploy endpoint.yaml
  mmekit deploy --schema
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@described
@dry_run_options
@timeout_option
@click.option("--schema", is_flag=True, help="Print the JSON schema of FILE, for editors, and end.")
@click.option("--markdown", is_flag=True, help="With --schema: print it as tables.")
@aws_options
def deploy(
    given: tuple[str | None, dict[str, Any]],
    dry_run: bool,
    as_json: bool,
    timeout_s: int,
    schema: bool,
    markdown: bool,
    aws: Aws,
) -> None:
    """Create an endpoint as FILE describes it, and wait until it is in service.

    Without FILE, options describe an endpoint of one variant; with it, they stand for what it has. What an
    earlier run left half-done is finished. An endpoint that is there and differs is not changed (exit code
    3): `mmekit update` does that. One that is Failed is replaced, as it can serve nothing.
    """
    if schema or markdown:
        from mmekit_toolkit.deploy.schema import as_json_schema, as_markdown

        click.echo(as_markdown() if markdown else as_json_schema())
        return
    description = description_of(given)
    from mmekit_toolkit.deploy.deployment import prepare

    deployment = prepare(description, aws, timeout_s=timeout_s, wait=not dry_run)
    plan = deployment.plan
    if plan.differences:
        click.echo("\n".join(plan.differences))
        raise FaultsFound(
            f"{description.name} is there and differs from the file. Nothing was changed: `mmekit update` "
            "makes it as described."
        )
    if dry_run:
        deployment.print_steps(as_json=as_json)
        return
    if not plan.steps:
        assert deployment.observed.endpoint
        click.echo(f"nothing to do: {deployment.summary(deployment.observed.endpoint)}, as described.")
        return
    click.echo(f"{deployment.summary(deployment.apply())}.")
