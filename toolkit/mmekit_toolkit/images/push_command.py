"""``mmekit push``: an image to ECR, or to another registry; what is printed is what SageMaker is given."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator

import click

from mmekit_toolkit.aws.clients import Aws, aws_options
from mmekit_toolkit.command import Command
from mmekit_toolkit.deploy import requests
from mmekit_toolkit.errors import FaultsFound
from mmekit_toolkit.images import destination, requirements
from mmekit_toolkit.images import image as images
from mmekit_toolkit.images.ecr_repository import EcrRepository
from mmekit_toolkit.images.engine import engine
from mmekit_toolkit.images.name import ImageName
from mmekit_toolkit.images.publish import Publication, Result
from mmekit_toolkit.images.push_progress import PushProgress
from mmekit_toolkit.images.repository import OtherRepository, Repository
from mmekit_toolkit.images.requirements import Check, State


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  mmekit push churn:1.0
  mmekit push churn:1.0 --repository churn --tag 1.0 --json
  mmekit push churn:1.0 --dry-run
""",
)
@click.argument("image")
@click.option(
    "--repository",
    metavar="[HOST/]NAME",
    help="Where the image goes; without a host, in the account's own ECR.  [default: as IMAGE is named]",
)
@click.option("--tag", metavar="TAG", help="The tag there.  [default: that of IMAGE, else sha- and its id]")
@click.option("--kms-key", metavar="ARN", help="Key of AWS KMS that encrypts the repository, if it is made.")
@click.option(
    "--registry",
    metavar="HOST[:PORT]",
    envvar="MMEKIT_REGISTRY",
    help="Address in place of ECR's for the image itself, as --endpoint-url is for its API: a local "
    "registry. [MMEKIT_REGISTRY]",
)
@click.option("--force", is_flag=True, help="Push also what SageMaker would refuse.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, as commands, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@aws_options
def push(
    image: str,
    repository: str | None,
    tag: str | None,
    kms_key: str | None,
    registry: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
    aws: Aws,
) -> None:
    """Push IMAGE to ECR and print its name by digest, as the `image:` of an endpoint's file takes it.

    The repository is made if it is not there: immutable tags, a scan of each push, encrypted. Docker is
    signed in for this push alone; the token is not stored and not on a command line. What is there already
    is not pushed again, and a lost connection is taken up again.

    With another registry's host, as in --repository registry.example.com/churn, AWS is not called and
    docker's own credentials are used (`docker login`).
    """
    client = engine()
    found = images.look(client, image)
    _refuse(requirements.check(found), image, force)
    wanted = destination.choose(found, repository, tag)
    place: Repository
    if wanted.is_ecr:
        place = EcrRepository(aws, wanted.repository, host=wanted.host, stand_in=registry, kms_key=kms_key)
    else:
        place = OtherRepository(str(wanted.host), wanted.repository)
    with _progress() as shown:
        remarks = [] if dry_run else place.make()
        for remark in remarks:
            shown.remark(remark)
        name = ImageName(place.host, place.name, wanted.tag)
        publication = Publication(client, found, place, name, shown.remark)
        if dry_run:
            _print_plan(place, publication, aws, as_json)
            return
        result = publication.publish(shown.event)
    _report(result, place.scan_findings(result.digest), as_json)
    _refuse(requirements.manifest(result.media_type), result.uri, force)


@contextlib.contextmanager
def _progress() -> Iterator[PushProgress]:
    """Yield what shows the progress: bars on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield PushProgress("mmekit push")
        return
    from mmekit_toolkit.images.push_bars import PushBars

    with PushBars("mmekit push") as bars:
        yield bars


def _refuse(checks: list[Check], name: str, force: bool) -> None:
    """Print what SageMaker would not like. Raises FaultsFound for what it would refuse."""
    for check in checks:
        if check.state is not State.OK:
            click.echo(f"mmekit push: {check.state.value}: {check.found} {check.advice}", err=True)
    if (faults := requirements.faults(checks)) and not force:
        names = ", ".join(check.name for check in faults)
        raise FaultsFound(f"SageMaker would refuse {name}: {names}. --force pushes it all the same.")


def _print_plan(place: Repository, publication: Publication, aws: Aws, as_json: bool) -> None:
    missing = place.missing()
    steps, commands = [missing] if missing else [], publication.commands()
    if as_json:
        plan = {"requests": [step.as_json() for step in steps], "commands": commands}
        click.echo(json.dumps(plan, indent=2))
        return
    lines = [requests.as_commands(steps, aws)] if steps else []
    lines += ["# push the image", *commands] if commands else ["# the image is there: nothing to push"]
    click.echo("\n".join(lines))


def _report(result: Result, findings: dict[str, int] | None, as_json: bool) -> None:
    """Print the name by digest; nothing else goes to stdout."""
    if not result.pushed:
        click.echo(f"mmekit push: {result.name} is this image already: nothing to do.", err=True)
    if findings is not None:
        counted = ", ".join(f"{number} {severity.lower()}" for severity, number in findings.items())
        click.echo(f"mmekit push: ECR's scan has found: {counted or 'nothing'}.", err=True)
    if not as_json:
        click.echo(result.uri)
        return
    click.echo(
        json.dumps(
            {
                "image": result.uri,
                "tag": result.name.tag,
                "digest": result.digest,
                "media_type": result.media_type,
                "pushed": result.pushed,
                "scan_findings": findings,
            },
            indent=2,
        )
    )
