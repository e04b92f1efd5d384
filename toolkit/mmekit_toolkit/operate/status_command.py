"""``mmekit status``: an endpoint, what it runs, how it does, and what is wrong."""

from __future__ import annotations

import time

import click

from mmekit_toolkit.aws.clients import Aws, aws_options
from mmekit_toolkit.command import Command
from mmekit_toolkit.deploy import reference
from mmekit_toolkit.operate import snapshot, status_text
from mmekit_toolkit.operate.snapshot import Snapshot

#: Between two looks of --watch. Metrics come by the minute, states sooner.
_PERIOD_S = 10.0


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  mmekit status churn
  mmekit status endpoint.yaml --json
""",
)
@click.argument("endpoint")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch a line for each look.")
@click.option("--watch", is_flag=True, help=f"Look again every {_PERIOD_S:.0f} s, until Ctrl-C.")
@aws_options
def status(endpoint: str, as_json: bool, watch: bool, aws: Aws) -> None:
    """Show an endpoint: instances, images, models, autoscaling, alarms, metrics, and what is wrong.

    What may not be read, or is not there, is named as such. Exit code 7: there is no such endpoint.
    """
    named = reference.resolve(endpoint)
    aws = aws.in_region(named.region)
    if not watch:
        _show(snapshot.take(aws, named.name), as_json, indent=2)
        return
    try:
        while True:
            found = snapshot.take(aws, named.name)
            click.clear()  # nothing where standard output is no terminal
            _show(found, as_json, indent=0)
            time.sleep(_PERIOD_S)
    except KeyboardInterrupt:
        return  # how watching ends, and therefore no failure


def _show(found: Snapshot, as_json: bool, indent: int) -> None:
    if not as_json:
        click.echo(status_text.render(found), nl=False)
        return
    import msgspec

    encoded = msgspec.json.encode(found.as_json())
    click.echo(msgspec.json.format(encoded, indent=indent) if indent else encoded)
