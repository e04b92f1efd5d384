"""``mmekit logs``: what an endpoint's containers have written, of all instances, by time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone

import click

from mmekit_toolkit.aws import explanations, log_events
from mmekit_toolkit.aws.clients import Aws, aws_options
from mmekit_toolkit.aws.log_events import Follower, LogEvent
from mmekit_toolkit.command import Command
from mmekit_toolkit.deploy import reference
from mmekit_toolkit.errors import NotFound
from mmekit_toolkit.operate import endpoint as endpoints

#: FilterLogEvents may be called five times a second, by everybody together.
_PERIOD_S = 2.0
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _since_ms(_: click.Context, __: click.Parameter, text: str) -> int:
    """Return ms since 1970 of ``10m``, ``2h``, or a date and time of ISO 8601, UTC where it names no zone."""
    if found := re.fullmatch(r"(\d+)([smhdw])", text):
        return max(0, int(time.time() * 1000) - int(found[1]) * _UNITS_S[found[2]] * 1000)
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no time. Expected 30s, 10m, 2h, 1d, or 2026-11-27T10:15:00."
        ) from None
    return max(0, int((at if at.tzinfo else at.replace(tzinfo=timezone.utc)).timestamp() * 1000))


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  mmekit logs churn
  mmekit logs endpoint.yaml --since 2h --filter error
""",
)
@click.argument("endpoint")
@click.option("--variant", metavar="NAME", help="Lines of this variant's instances only.")
@click.option("--instance", metavar="ID", help="Lines of this instance only.")
@click.option(
    "--since",
    callback=_since_ms,
    default="10m",
    show_default=True,
    metavar="TIME",
    help="Lines from then on: 30s, 10m, 2h, 1d ago, or a date and time.",
)
@click.option("--filter", "text", metavar="TEXT", help="Lines that have this text in them only.")
@click.option("--follow", is_flag=True, help="Go on with what is written, until Ctrl-C.")
@aws_options
def logs(
    endpoint: str,
    variant: str | None,
    instance: str | None,
    since: int,
    text: str | None,
    follow: bool,
    aws: Aws,
) -> None:
    """Show what the containers of an endpoint have written, of all its instances, by time."""
    from botocore.exceptions import ClientError

    named = reference.resolve(endpoint)
    aws = aws.in_region(named.region)
    # A prefix of streams that the service knows spares reading those of other variants.
    streams = f"{variant}/{instance or ''}" if variant else ""

    def wanted(events: Iterable[LogEvent]) -> Iterator[LogEvent]:
        for event in events:
            at_instance = instance is None or instance in event.stream.split("/")[1:2]
            if at_instance and (text or "") in event.message:
                yield event

    try:
        if follow:
            _follow(Follower(aws, named.name, since_ms=since, streams=streams), wanted)
        elif not _show(wanted(log_events.read(aws, named.name, since_ms=since, streams=streams))):
            click.echo("No such lines; --since goes further back.", err=True)
    except ClientError as error:
        if explanations.code(error) != "ResourceNotFoundException":
            raise
        raise _no_group(aws, named.name) from error


def _follow(follower: Follower, wanted: Callable[[Iterable[LogEvent]], Iterator[LogEvent]]) -> None:
    """Show what comes until Ctrl-C, which is how this ends and therefore no failure."""
    try:
        while True:
            _show(wanted(follower.look()))
            time.sleep(_PERIOD_S)  # CloudWatch Logs tells of nothing by itself
    except KeyboardInterrupt:
        return


def _show(events: Iterable[LogEvent]) -> int:
    """Print lines and return their number."""
    shown = 0
    for event in events:
        at = datetime.fromtimestamp(event.time_ms / 1000, timezone.utc)
        when = f"{at:%Y-%m-%dT%H:%M:%S}.{event.time_ms % 1000:03}Z"
        click.echo(f"{when} {event.stream} {event.message}")
        shown += 1
    return shown


def _no_group(aws: Aws, endpoint: str) -> NotFound:
    """Return why there is no log group. Raises NotFound where there is no endpoint either."""
    status = endpoints.describe(aws, endpoint)["EndpointStatus"]
    return NotFound(
        f"the endpoint {endpoint} ({status}) has no log group {log_events.group_of(endpoint)}. No container "
        "has written anything yet, or its role may not write logs: `mmekit iam execution-role` prints what "
        "it needs."
    )
