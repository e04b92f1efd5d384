"""``mmekit archive check``."""

from __future__ import annotations

from pathlib import Path

import click

from mmekit.archive.sample import read_sample
from mmekit_toolkit.archive.check import GIB, Order, checked
from mmekit_toolkit.archive.display import Display
from mmekit_toolkit.archive.environment import Environment
from mmekit_toolkit.archive.findings import Level, about, count, faults, in_order
from mmekit_toolkit.archive.report import Report, json_text
from mmekit_toolkit.archive.sources import Source, here, sources
from mmekit_toolkit.aws.clients import Aws, aws_options
from mmekit_toolkit.command import Command
from mmekit_toolkit.errors import FaultsFound

_EXAMPLES = """\b
Examples:
  mmekit archive check churn-model
  mmekit archive check --image churn:1.0 models
  mmekit archive check --json churn-model
"""


@click.command("check", cls=Command, epilog=_EXAMPLES)
@click.argument("given", metavar="FILE|DIR|s3://BUCKET/KEY...", nargs=-1, required=True)
@click.option("--image", metavar="IMAGE", help="Compare versions with what is installed in this image.")
@click.option(
    "--volume-gb",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GB",
    help="What an instance's volume has for models; more is a fault.",
)
@click.option(
    "--load",
    is_flag=True,
    help="Load each model without faults in a server of its own here, which runs its code, and measure load, "
    "memory and two calls with its sample request.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the reports as one JSON list.")
@aws_options
def check_command(
    given: tuple[str, ...],
    image: str | None,
    volume_gb: float | None,
    load: bool,
    as_json: bool,
    aws: Aws,
) -> None:
    """Say what would be loaded from archives or folders, by what, and what is wrong.

    Nothing of the model's is imported, unpickled or run, except with --load. A folder with nothing but
    archives stands for each of them. Faults will not load, will fail, or are not safe; warnings may fail;
    remarks could be better. Exit code 3 when there are faults. Without --image, versions are compared with
    this environment's.
    """
    if load and image:
        raise click.UsageError("--load loads the model in this environment, not in the image: leave one out.")
    found = _check_all(given, image, volume_gb, load, aws, Display())
    if as_json:
        click.echo(json_text(found))
    else:
        _print_all(found)
    if number := sum(faults(report.findings) for report in found):
        raise FaultsFound(f"{count(number, 'fault')} found.")


def _check_all(
    given: tuple[str, ...],
    image: str | None,
    volume_gb: float | None,
    load: bool,
    aws: Aws,
    display: Display,
) -> list[Report]:
    environment = Environment()
    todo = sources(given)
    if image:
        from mmekit_toolkit.archive.image import environment_of

        with display.steps(f"asking {image} what is installed"):
            environment = environment_of(image)
    volume_bytes = int(volume_gb * GIB) if volume_gb else None
    return [_check_one(source, environment, volume_bytes, load, aws, display) for source in todo]


def _check_one(
    source: Source,
    environment: Environment,
    volume_bytes: int | None,
    load: bool,
    aws: Aws,
    display: Display,
) -> Report:
    limit = Order(environment, volume_bytes).max_bytes
    with here(source, aws, limit, display) as path, display.steps(source.text) as tell:
        order = Order(environment, volume_bytes, tell=tell)
        with checked(path, source.text, order) as (report, folder):
            if load and folder is not None:
                tell("loading")
                _load(report, folder)
            return report


def _load(report: Report, folder: Path) -> None:
    """Load the model; add to the report what that took, and what went wrong."""
    if faults(report.findings):
        text = "it was not loaded, as it has faults."
        report.findings.append(about(Level.REMARK, "not-loaded-for-faults", text))
        return
    from mmekit_toolkit.archive.trial import load

    report.loaded, found = load(folder, read_sample(str(folder)))
    report.findings = in_order([*report.findings, *found])


def _print_all(found: list[Report]) -> None:
    from rich.console import Console

    from mmekit_toolkit.archive.printing import print_report

    console = Console()
    for number, report in enumerate(found):
        if number:
            console.print()
        print_report(report, console)
