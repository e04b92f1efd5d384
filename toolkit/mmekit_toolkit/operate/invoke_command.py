"""``mmekit invoke``: calls one model, waits while it is loaded, and prints its answer's bytes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from mmekit_toolkit import content_types
from mmekit_toolkit.archive.display import Display
from mmekit_toolkit.aws import s3
from mmekit_toolkit.aws.clients import Aws, aws_options
from mmekit_toolkit.command import Command
from mmekit_toolkit.deploy import reference
from mmekit_toolkit.deploy.reference import Reference
from mmekit_toolkit.errors import CredentialsError
from mmekit_toolkit.operate import catalog, naming
from mmekit_toolkit.operate.endpoint import models_of
from mmekit_toolkit.operate.invocation import LOADING, Again, Answer
from mmekit_toolkit.operate.invocation import invoke as call


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  mmekit invoke churn churn-model --file payload.csv
  mmekit invoke endpoint.yaml churn-model --data 1,2,3 --content-type text/csv -v
  mmekit invoke churn churn-model --file payload.csv --accept application/json --output answer.json
""",
)
@click.argument("endpoint")
@click.argument("model")
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The request.")
@click.option("--data", metavar="TEXT", help="The request. Without --file and --data it is standard input.")
@click.option("--content-type", metavar="TYPE", help="Of the request. Else as the file's suffix has it.")
@click.option("--accept", metavar="TYPE", help="Of the answer.")
@click.option("--target-variant", metavar="NAME", help="Else SageMaker chooses by weight.")
@click.option("--custom-attributes", metavar="TEXT", help="Handed to the container, at most 1024 characters.")
@click.option("--inference-id", metavar="ID", help="Your own id of this call.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the answer to a file.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=360.0,
    show_default=True,
    metavar="SECONDS",
    help="Call again for so long while the model is being loaded.",
)
@click.option("-v", "--verbose", is_flag=True, help="Tell type, variant and time of the answer.")
@aws_options
def invoke(
    endpoint: str,
    model: str,
    file: Path | None,
    data: str | None,
    content_type: str | None,
    accept: str | None,
    target_variant: str | None,
    custom_attributes: str | None,
    inference_id: str | None,
    output: Path | None,
    wait_s: float,
    verbose: bool,
    aws: Aws,
) -> None:
    """Call a model of an endpoint and print its answer, byte by byte as it came.

    MODEL is a TargetModel (churn-1f3870be274f.tar.gz), or a name, which stands for its newest version. A
    model that is not loaded yet is waited for.
    """
    content_type = content_type or (content_types.of_file(file) if file else None)
    if content_type is None:
        raise click.UsageError(
            "give --content-type, such as text/csv: nothing else says what the request is."
        )
    body = _body(file, data)
    named = reference.resolve(endpoint)
    aws = aws.in_region(named.region)
    target = _target(aws, named, model, target_variant)
    request = {
        "EndpointName": named.name,
        "TargetModel": target,
        "Body": body,
        "ContentType": content_type,
        "Accept": accept,
        "TargetVariant": target_variant,
        "CustomAttributes": custom_attributes,
        "InferenceId": inference_id,
    }
    given = {name: value for name, value in request.items() if value is not None}
    with _waiting(target) as tell:
        answer = call(aws, given, patience_s=wait_s, tell=tell)
    _write(answer, output)
    if verbose:
        click.echo(_about(answer, target), err=True)


def _body(file: Path | None, data: str | None) -> bytes:
    if file is not None and data is not None:
        raise click.UsageError("--file and --data are both the request: give one of them.")
    if file is not None:
        return file.read_bytes()
    if data is not None:
        return data.encode()
    if sys.stdin.isatty():
        raise click.UsageError("give the request: --file, --data, or standard input.")
    return sys.stdin.buffer.read()


def _target(aws: Aws, named: Reference, model: str, variant: str | None) -> str:
    """Return the TargetModel: itself, or the newest version of a name. Raises NotFound."""
    if model.endswith(naming.SUFFIX):
        return model
    prefix = models_of(aws, named, variant).prefix
    try:
        return catalog.newest(catalog.entries(s3.list_objects(aws, prefix)), model)
    except CredentialsError as error:
        raise CredentialsError(
            f"{error.message} A TargetModel in place of the name {model!r} needs no listing."
        ) from error


@contextlib.contextmanager
def _waiting(target: str) -> Iterator[Callable[[Again], None]]:
    """Show on stderr that a model is waited for: a spinner on a terminal, else a line for each try."""
    if sys.stderr.isatty():
        with Display().steps(f"calling {target}") as tell:
            yield lambda again: tell(_reason(again))
    else:
        yield lambda again: click.echo(f"{target}: {_reason(again)}; calling again.", err=True)


def _reason(again: Again) -> str:
    what = "not loaded yet" if again.code == LOADING else again.code
    return f"{what} ({again.waited_s:.0f} s)"


def _write(answer: Answer, output: Path | None) -> None:
    if output is not None:
        output.write_bytes(answer.body)
        return
    sys.stdout.buffer.write(answer.body)
    sys.stdout.buffer.flush()
    if sys.stdout.isatty() and not answer.body.endswith(b"\n"):
        click.echo(err=True)  # what follows begins a line; the answer itself stays as it came


def _about(answer: Answer, target: str) -> str:
    parts: list[Any] = [
        answer.content_type or "no content type",
        f"{len(answer.body)} bytes",
        f"variant {answer.variant}",
        f"{answer.latency_s * 1000:.1f} ms",
        f"{answer.tries} tries" if answer.tries > 1 else "",
        f"custom attributes {answer.custom_attributes}" if answer.custom_attributes else "",
    ]
    return f"{target}: {', '.join(part for part in parts if part)}"
