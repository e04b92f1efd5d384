"""How a person describes an endpoint on the command line: a file, options, or a file and options over it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mmekit_toolkit.deploy.description import Description

#: Fields that have an option.
_FIELDS = ("name", "image", "role", "models", "instance_type", "instances")

_OPTIONS = [
    click.argument("file", required=False, metavar="[FILE]"),
    click.option("--name", metavar="NAME", help="Name of the endpoint."),
    click.option("--image", metavar="IMAGE", help="Image in ECR, by tag or digest."),
    click.option("--role", metavar="ROLE", help="Execution role: name or ARN."),
    click.option("--models", metavar="S3PREFIX", help="Where archives lie: s3://bucket/prefix/."),
    click.option("--instance-type", metavar="TYPE", help="Such as ml.m5.xlarge."),
    click.option("--instances", type=int, metavar="N", help="Number of instances. [1]"),
]

_OUTPUT = [
    click.option("--dry-run", is_flag=True, help="Print the requests as AWS CLI commands; change nothing."),
    click.option("--json", "as_json", is_flag=True, help="With --dry-run: print them as JSON."),
]


#: --timeout of deploy and delete; `update` has the file's own.
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=click.IntRange(1),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="Of each wait.",
)


def described(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add FILE and the options; the function gets them as ``given``, for `description_of`."""

    @wraps(command)
    def with_given(*args: Any, file: str | None, **options: Any) -> Any:
        fields = {name: options.pop(name) for name in _FIELDS}
        given = (file, {name: value for name, value in fields.items() if value is not None})
        return command(*args, given=given, **options)

    return _with(_OPTIONS, with_given)


def dry_run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --dry-run and --json; the function gets ``dry_run`` and ``as_json``."""

    @wraps(command)
    def checked(*args: Any, dry_run: bool, as_json: bool, **options: Any) -> Any:
        if as_json and not dry_run:
            raise click.UsageError("--json goes with --dry-run.")
        return command(*args, dry_run=dry_run, as_json=as_json, **options)

    return _with(_OUTPUT, checked)


def description_of(given: tuple[str | None, dict[str, Any]]) -> Description:
    """Return what FILE and options describe. Raises BadDescription, NotFound; UsageError with neither."""
    from mmekit_toolkit.deploy import file

    path, options = given
    if path is not None:
        return file.read(Path(path), options)
    if not options:
        raise click.UsageError(
            "Give the YAML file that describes the endpoint, or --name, --image, --role, --models and "
            "--instance-type. `mmekit deploy --schema` prints what a file has."
        )
    return file.compose(options)


def _with(options: list[Callable[..., Any]], command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command
