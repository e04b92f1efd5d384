"""``mmekit models``: what lies below an endpoint's prefix. Adding a model is uploading an archive."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Container, Iterator
from pathlib import Path

import click

from mmekit_toolkit.archive.findings import count, printable
from mmekit_toolkit.archive.sizes import shown_bytes
from mmekit_toolkit.aws import s3
from mmekit_toolkit.aws.clients import Aws, aws_options
from mmekit_toolkit.command import Group
from mmekit_toolkit.deploy import reference
from mmekit_toolkit.errors import ToolkitError
from mmekit_toolkit.operate import archives, catalog, changes, sync, texts, uploads
from mmekit_toolkit.operate.archives import Archive
from mmekit_toolkit.operate.catalog import Entry
from mmekit_toolkit.operate.endpoint import Models, models_of

_variant_option = click.option(
    "--variant", metavar="NAME", help="Variant whose models are meant, where they differ."
)
_dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
_yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
_check_option = click.option(
    "--check/--no-check", default=True, show_default=True, help="Refuse archives with faults."
)


@click.group(cls=Group)
def models() -> None:
    """Add, list and remove an endpoint's models.

    ENDPOINT is an endpoint's name or the YAML file of one. A model's versions lie below the endpoint's prefix
    as NAME-HASH.tar.gz, which is the TargetModel of calls: an archive that changed gets another, so that an
    endpoint never serves two models under one name.
    """


@models.command(
    epilog="""\b
Examples:
  mmekit models add endpoint.yaml ./churn-model
  mmekit models add churn ./churn-model --name tenant_a/churn
  mmekit models add churn ./churn-model --dry-run
"""
)
@click.argument("endpoint")
@click.argument(
    "paths", nargs=-1, required=True, metavar="FILE|DIR...", type=click.Path(exists=True, path_type=Path)
)
@click.option("--name", metavar="NAME", help="Name of the model. Else the file's or folder's.")
@_variant_option
@_check_option
@_dry_run_option
@aws_options
def add(
    endpoint: str,
    paths: tuple[Path, ...],
    name: str | None,
    variant: str | None,
    check: bool,
    dry_run: bool,
    aws: Aws,
) -> None:
    """Upload archives, or folders that are packed first, and print the TargetModel of each.

    The endpoint can be called with it at once. What is there already is not uploaded again.
    """
    if name is not None and len(paths) > 1:
        raise click.UsageError("--name is for one model.")
    aws, place = _place(endpoint, variant, aws)
    with tempfile.TemporaryDirectory(prefix="mmekit-") as scratch:
        found = [archives.ready(path, Path(scratch), name=name) for path in paths]
        for archive in changes.upload(aws, found, place, check=check, dry_run=dry_run):
            click.echo(archive.target)


@models.command(
    "list",
    epilog="""\b
Examples:
  mmekit models list churn
  mmekit models list endpoint.yaml --json
""",
)
@click.argument("endpoint")
@_variant_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@aws_options
def list_(endpoint: str, variant: str | None, as_json: bool, aws: Aws) -> None:
    """List models by name, the newest version of each first.

    Objects whose key has no hash were put there by other means; they can be called, too.
    """
    aws, place = _place(endpoint, variant, aws)
    entries = catalog.entries(s3.list_objects(aws, place.prefix))
    if as_json:
        click.echo(json.dumps([_as_json(entry) for entry in entries], indent=2))
        return
    rows = [
        (
            printable(entry.name or "(not by mmekit)"),
            printable(entry.target),
            shown_bytes(entry.object.size_bytes),
            texts.moment(entry.object.modified),
            "current" if entry.current else "",
        )
        for entry in entries
    ]
    click.echo(texts.table(("NAME", "TARGET MODEL", "SIZE", "MODIFIED", ""), rows), nl=False)
    total = shown_bytes(sum(entry.object.size_bytes for entry in entries))
    click.echo(f"{count(len(entries), 'object')}, {total}, below {place.prefix}", err=True)


@models.command(
    epilog="""\b
Examples:
  mmekit models remove churn churn-model --keep 1 --yes
  mmekit models remove endpoint.yaml --keep 3 --yes
"""
)
@click.argument("endpoint")
@click.argument("wanted", nargs=-1, metavar="[TARGET|NAME...]")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="Keep the newest N versions of each name; without names, of all.",
)
@_variant_option
@_yes_option
@_dry_run_option
@aws_options
def remove(
    endpoint: str,
    wanted: tuple[str, ...],
    keep: int | None,
    variant: str | None,
    yes: bool,
    dry_run: bool,
    aws: Aws,
) -> None:
    """Remove versions of models: a TargetModel is one, a name all of them.

    Instances that have loaded a model go on serving it until they evict it: stop calling it first. Only
    what `mmekit models` uploaded is removed.
    """
    if not wanted and keep is None:
        raise click.UsageError("name models, or give --keep.")
    aws, place = _place(endpoint, variant, aws)
    chosen = catalog.chosen(catalog.entries(s3.list_objects(aws, place.prefix)), wanted, keep)
    ours, foreign = uploads.by_origin(aws, place.prefix, chosen)
    if foreign and wanted:
        raise ToolkitError(
            "not uploaded by mmekit, and therefore not removed by it: "
            f"{printable(', '.join(entry.target for entry in foreign))}. Nothing was removed. "
            f"`aws s3 rm {shlex.quote(str(place.prefix.below(foreign[0].target)))}` removes one."
        )
    if not ours:
        click.echo("Nothing to remove.", err=True)
        return
    changes.remove(aws, ours, place.prefix, yes, dry_run)


@models.command(
    "sync",
    epilog="""\b
Examples:
  mmekit models sync churn ./models
  mmekit models sync endpoint.yaml ./models --delete --dry-run
""",
)
@click.argument("endpoint")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--delete", is_flag=True, help="Remove versions that DIR does not have; asks first.")
@_variant_option
@_check_option
@_yes_option
@_dry_run_option
@aws_options
def sync_(
    endpoint: str,
    folder: Path,
    delete: bool,
    variant: str | None,
    check: bool,
    yes: bool,
    dry_run: bool,
    aws: Aws,
) -> None:
    """Upload the archives and model folders of DIR that are not there yet.

    A folder with nothing but archives is part of their names: tenant_a/churn.tar.gz is tenant_a/churn.
    """
    aws, place = _place(endpoint, variant, aws)
    with tempfile.TemporaryDirectory(prefix="mmekit-") as scratch:
        entries = catalog.entries(s3.list_objects(aws, place.prefix))
        found = list(_ready(folder, Path(scratch), {entry.target for entry in entries}))
        if not found:
            raise ToolkitError(f"{folder} has no archives and no model folders: there is nothing to compare.")
        planned = sync.plan(found, entries)
        for _ in changes.upload(aws, planned.uploads, place, check=check, dry_run=dry_run):
            pass
    surplus, _ = uploads.by_origin(aws, place.prefix, planned.surplus if delete else [])
    if surplus:
        changes.remove(aws, surplus, place.prefix, yes, dry_run)
    if not planned.uploads and not surplus:
        click.echo(f"Nothing to do: {place.prefix} has all {len(found)} models of {folder}.", err=True)


def _ready(folder: Path, scratch: Path, there: Container[str]) -> Iterator[Archive]:
    """Yield the archives of a folder; those packed for comparison only are deleted again."""
    for path, above in archives.find(folder):
        archive = archives.ready(path, scratch, folder=above)
        if path.is_dir() and archive.target in there:
            archive.file.unlink()  # a thousand of them may not fit beside each other
        yield archive


def _place(endpoint: str, variant: str | None, aws: Aws) -> tuple[Aws, Models]:
    named = reference.resolve(endpoint)
    aws = aws.in_region(named.region)
    return aws, models_of(aws, named, variant)


def _as_json(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.name,
        "target_model": entry.target,
        "size_bytes": entry.object.size_bytes,
        "modified": entry.object.modified.isoformat(),
        "current": entry.current,
    }
