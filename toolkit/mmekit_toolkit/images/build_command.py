"""``mmekit build``: docker's build, and what SageMaker would say to its result."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from mmekit_toolkit.command import Command
from mmekit_toolkit.errors import FaultsFound, NotFound
from mmekit_toolkit.images import docker_build, image, requirements, trial
from mmekit_toolkit.images.engine import engine

_NO_DOCKERFILE = """\
there is no {path}. On top of mmekit's image five lines are enough:
  FROM mmekit:cpu
  # What your models need beside the image's own frameworks:
  RUN pip install --no-cache-dir lightgbm
  COPY my_handler.py /opt/code/
  ENV PYTHONPATH=/opt/code SAGEMAKER_HANDLER=my_handler:MyHandler
Label, port and entry point are inherited. Another file is named with --file."""


class _BuildCommand(Command):
    """Keeps what follows ``--`` apart: it is docker's, options and all."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta["mmekit.docker_arguments"] = tuple(args[at + 1 :])
        return super().parse_args(ctx, args[:at])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- ARGUMENTS OF DOCKER BUILD]"]


@click.command(
    cls=_BuildCommand,
    epilog="""\b
Examples:
  mmekit build --tag churn:1.0
  mmekit build . --tag churn:1.0 --file Dockerfile --no-start
  mmekit build --tag churn:1.0 --json -- --label team=risk
""",
)
@click.argument("context", default=".")
@click.option("--tag", "-t", required=True, metavar="NAME:TAG", help="Name of the image, such as churn:1.0.")
@click.option("--file", "-f", metavar="PATH", help="The Dockerfile.  [default: CONTEXT/Dockerfile]")
@click.option("--build-arg", multiple=True, metavar="NAME=VALUE", help="Value of an ARG; may be repeated.")
@click.option(
    "--platform",
    type=click.Choice(requirements.PLATFORMS),
    default=requirements.PLATFORMS[0],
    show_default=True,
    help="Graviton instances (ml.c7g, ml.m7g …) run linux/arm64, all others linux/amd64.",
)
@click.option("--target", metavar="STAGE", help="Build up to this stage of the Dockerfile.")
@click.option("--pull", is_flag=True, help="Ask the registry for a newer image of FROM.")
@click.option("--no-cache", is_flag=True, help="Run every step again.")
@click.option("--no-start", is_flag=True, help="Do not start a container to see whether it answers.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.pass_context
def build(
    ctx: click.Context,
    context: str,
    tag: str,
    file: str | None,
    build_arg: tuple[str, ...],
    platform: str,
    target: str | None,
    pull: bool,
    no_cache: bool,
    no_start: bool,
    as_json: bool,
) -> None:
    """Build an image with `docker build`, and check that SageMaker can host many models in it.

    CONTEXT is a folder, by default this one, or the address of a git repository. Arguments after -- go on to
    docker build. The result has the manifest that SageMaker accepts, for one platform and without
    attestations. It is then checked: labels, entry point, user, port, platform, and that a container of it
    answers /ping and /models. A fault is exit code 3; the image stays.
    """
    order = docker_build.Order(
        context=context,
        tag=tag,
        platform=platform,
        file=file,
        build_args=build_arg,
        target=target,
        pull=pull,
        no_cache=no_cache,
        more=ctx.meta["mmekit.docker_arguments"],
    )
    _find_dockerfile(order)
    client = engine()
    builder = docker_build.find_builder(os.environ)
    if remark := foreign(platform, client.version()["Arch"]):
        click.echo(f"mmekit build: {remark}", err=True)
    docker_build.run(docker_build.command_line(order, builder), builder)
    _report(*_examine(client, tag, start=not no_start), as_json)


def _find_dockerfile(order: docker_build.Order) -> None:
    """Raises NotFound when context or Dockerfile are not there, as far as they are on this machine."""
    if order.context == "-" or order.file == "-":
        raise click.UsageError("docker's standard input is closed: name a folder and a file.")
    if "://" in order.context or order.context.startswith("git@"):
        return
    context = Path(order.context)
    if not context.is_dir():
        raise NotFound(f"there is no folder {context}. Expected the folder that the Dockerfile copies from.")
    path = Path(order.file) if order.file else context / "Dockerfile"
    if not path.is_file():
        raise NotFound(_NO_DOCKERFILE.format(path=path))


def foreign(platform: str, architecture: str) -> str | None:
    """Say what it means to build for a platform that is not the engine's; None if it is."""
    if platform == f"linux/{architecture}":
        return None
    return (
        f"building for {platform} on an engine with {architecture}: programs run in emulation, several times "
        "slower. SageMaker's instances are linux/amd64, those with Graviton linux/arm64."
    )


def _examine(client: Any, tag: str, *, start: bool) -> tuple[image.Image, list[requirements.Check]]:
    found = image.look(client, tag)
    checks = requirements.check(found)
    if start:
        click.echo(f"mmekit build: starting a container of {tag} …", err=True)
        checks.append(trial.start(client, tag))
    return found, checks


def _report(found: image.Image, checks: list[requirements.Check], as_json: bool) -> None:
    """Print what was found. Raises FaultsFound."""
    if as_json:
        click.echo(json.dumps(_as_json(found, checks), indent=2))
    else:
        size_mb = found.size_bytes / 1e6
        click.echo(f"{found.name}  {found.short_id}  {found.platform}  {size_mb:,.0f} MB")
        for check in checks:
            click.echo(f"  {check}")
    sys.stdout.flush()
    if faults := requirements.faults(checks):
        names = ", ".join(check.name for check in faults)
        raise FaultsFound(f"{found.name} is built, but SageMaker could not host it: {names}.")


def _as_json(found: image.Image, checks: list[requirements.Check]) -> dict[str, Any]:
    return {
        "image": found.name,
        "id": found.id,
        "platform": found.platform,
        "size_bytes": found.size_bytes,
        "checks": [{**dataclasses.asdict(check), "state": check.state.value} for check in checks],
    }
