"""``mmekit archive``: takes the options of model-archiver, so that scripts need only another first word."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mmekit.archive.manifest import RUNTIMES
from mmekit.errors import MmekitError
from mmekit_toolkit.archive.pack import SUFFIXES, Order, handler_is_packed, pack


@click.group()
def archive() -> None:
    """Make model archives."""


@archive.command(
    "pack",
    epilog="Example: mmekit archive pack --model-name iris --model-path ./iris --handler service.py:handle",
)
@click.option(
    "--model-name",
    required=True,
    help="Name of the model, and of the file: letters, digits, '_', '-' and '.'.",
)
@click.option(
    "--model-path",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder with the files to pack.",
)
@click.option(
    "--handler",
    required=True,
    help="What runs the model: service.py:handle, a file of the folder, or a module that the image has.",
)
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default=RUNTIMES[0],
    show_default=True,
    help="The manifest's runtime.",
)
@click.option(
    "--export-path",
    type=click.Path(path_type=Path),
    default=Path(),
    show_default="the current folder",
    help="Folder to write to.",
)
@click.option(
    "--archive-format",
    type=click.Choice(list(SUFFIXES)),
    default="default",
    show_default=True,
    help="default: NAME.mar. tgz: NAME.tar.gz, all below a folder NAME. no-archive: the folder NAME.",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite what is there.")
@click.option(
    "-c", "--convert", is_flag=True, help="Refused for a folder with an ONNX file: converting needs MXNet."
)
def pack_command(
    model_name: str,
    model_path: Path,
    handler: str,
    runtime: str,
    export_path: Path,
    archive_format: str,
    force: bool,
    convert: bool,
) -> None:
    """Pack a folder with its manifest into an archive that this server and Multi Model Server load.

    Left out are hidden folders, __pycache__, __MACOSX, .pyc, .DS_Store, .mar and other manifests.
    """
    order = Order(
        model_name=model_name,
        handler=handler,
        model_path=model_path,
        export_path=export_path,
        runtime=runtime,
        archive_format=archive_format,
        force=force,
        convert=convert,
    )
    try:
        target = pack(order)
    except MmekitError as error:
        click.echo(f"mmekit archive pack: {error.message}", err=True)
        sys.exit(1)
    if not handler_is_packed(order):
        click.echo(
            f"mmekit archive pack: the handler {handler!r} is not in {model_path}: the image must have it.",
            err=True,
        )
    click.echo(f"Wrote {target}.")
