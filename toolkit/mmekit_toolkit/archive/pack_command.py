"""``mmekit archive pack``: of a folder for SageMaker, or with the options of model-archiver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mmekit.archive.manifest import RUNTIMES
from mmekit.archive.sample import Sample, read_sample
from mmekit.formats import FRAMEWORKS, PYTORCH
from mmekit_toolkit.archive import bundle
from mmekit_toolkit.archive.check import Order as CheckOrder
from mmekit_toolkit.archive.check import check
from mmekit_toolkit.archive.display import Display
from mmekit_toolkit.archive.findings import Level, count, faults, shown
from mmekit_toolkit.archive.pack import SUFFIXES, Order, handler_is_packed, pack
from mmekit_toolkit.archive.report import Report, json_text
from mmekit_toolkit.archive.sample_rows import content_type_of
from mmekit_toolkit.archive.signature import Signature, read_signature
from mmekit_toolkit.archive.sizes import shown_bytes
from mmekit_toolkit.command import Command
from mmekit_toolkit.errors import FaultsFound, ToolkitError

_EXAMPLES = """\b
Examples:
  mmekit archive pack churn-model --output models
  mmekit archive pack churn-model --sample-request payload.csv --warm-up
  mmekit archive pack churn-model --name churn --signature auto
"""

#: Options of the form that model-archiver has; all others but --debug belong to DIR.
_ARCHIVERS = frozenset(
    {"model_name", "model_path", "handler", "runtime", "export_path", "archive_format", "force", "convert"}
)
_REQUIRED = ("model_name", "model_path", "handler")
#: Predictions until a model is warm: TorchScript watches the first and compiles in the second.
_WARM_UP = {FRAMEWORKS[PYTORCH][0]: 3}
#: Takes the signature from the model's own file.
_AUTO = "auto"


class _TwoForms(Command):
    """A command with two forms; its help shows them apart."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "DIR [OPTIONS]")
        formatter.write_usage(
            ctx.command_path, "--model-name NAME --model-path DIR --handler HANDLER [OPTIONS]", "   or: "
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {
            "An archive for SageMaker, of DIR": [],
            "In place of model-archiver, for Multi Model Server": [],
            "Both": [],
        }
        own, archivers, both = sections.values()
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or not isinstance(parameter, click.Option):
                continue
            is_for_both = {"--help", "--debug"} & {*parameter.opts}
            section = archivers if parameter.name in _ARCHIVERS else both if is_for_both else own
            section.append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            _check_form(self, ctx)
        return rest


def _check_form(command: click.Command, ctx: click.Context) -> None:
    """Refuse options of both forms together, and the second without what it needs."""
    parameters = {parameter.name: parameter for parameter in command.get_params(ctx)}
    given = {
        name
        for name in ctx.params
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }
    if ctx.params["folder"] is not None:
        if mixed := sorted(given & _ARCHIVERS):
            raise click.UsageError(
                f"DIR and {parameters[mixed[0]].opts[-1]} do not go together: the second is for "
                "model-archiver's "
                "form, without DIR.",
                ctx,
            )
        return
    if not given & _ARCHIVERS:
        raise click.UsageError("Missing argument 'DIR', or the options of model-archiver.", ctx)
    for name in _REQUIRED:
        if name not in given:
            raise click.MissingParameter(ctx=ctx, param=parameters[name])
    if mixed := sorted(given - _ARCHIVERS):
        raise click.UsageError(f"{parameters[mixed[0]].opts[-1]} is for `{ctx.command_path} DIR`.", ctx)


@click.command("pack", cls=_TwoForms, epilog=_EXAMPLES)
@click.argument(
    "folder",
    metavar="DIR",
    required=False,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option("--name", metavar="NAME", help="Begin of the archive's name.  [default: the folder's name]")
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    show_default="the current folder",
    help="Folder to write to; it is made if need be.",
)
@click.option(
    "--sample-request",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A request that the model answers; kept in the archive as MAR-INF/sample-request.",
)
@click.option("--content-type", metavar="TYPE", help="Its content type.  [default: by the file's name]")
@click.option("--accept", metavar="TYPE", help="The answer's type that it asks for.")
@click.option(
    "--warm-up",
    is_flag=True,
    help="Let the container answer the sample while it loads the model, so that the first call is as fast as "
    "the next; if it cannot, the load fails.",
)
@click.option(
    "--signature",
    metavar="FILE|auto",
    help="What the model takes and answers, kept as MAR-INF/signature.json; auto: as its own file says "
    "(XGBoost, scikit-learn).",
)
@click.option("--allow-faults", is_flag=True, help="Write the archive though the check finds faults.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print path, hash, size and the check's report as JSON."
)
@click.option("--model-name", help="Name of the model, and of the file: letters, digits, '_', '-' and '.'.")
@click.option("--model-path", type=click.Path(path_type=Path), help="Folder with the files to pack.")
@click.option(
    "--handler",
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
    help="default: NAME.mar. tgz: NAME.tar.gz, all below a folder NAME, which SageMaker cannot use. "
    "no-archive: the folder NAME.",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite what is there.")
@click.option(
    "-c", "--convert", is_flag=True, help="Refused for a folder with an ONNX file: converting needs MXNet."
)
def pack_command(
    folder: Path | None,
    name: str | None,
    output: Path,
    sample_request: Path | None,
    content_type: str | None,
    accept: str | None,
    warm_up: bool,
    signature: str | None,
    allow_faults: bool,
    as_json: bool,
    **archivers: Any,  # the options of Order, each checked by click
) -> None:
    """Pack a model's folder into an archive.

    With DIR: the .tar.gz that SageMaker's multi-model endpoints take, files at its root, written to
    NAME-HASH.tar.gz, whose path is printed. The same files give the same bytes and so the same name: an
    archive that is there already is left as it is. Files that systems and tools leave behind (.DS_Store,
    __pycache__, .git, …) are left out, and what links lead to is packed in their place. The folder is checked
    first, as by `mmekit archive check`; with faults nothing is written.

    With model-archiver's options: a manifest and the folder's files, as a .mar that mmekit and Multi Model
    Server load from a model store. Left out are hidden folders, __pycache__, __MACOSX, .pyc, .DS_Store, .mar
    and other manifests.
    """
    if folder is None:
        _pack_as_model_archiver(Order(**archivers))
        return
    name = name or folder.resolve().name
    request = _request(folder, sample_request, content_type, accept, warm_up)
    given = None if signature in (None, _AUTO) else read_signature(Path(str(signature)))
    display = Display()
    with display.steps(f"checking {folder}") as tell:
        report = check(folder, str(folder), CheckOrder(sample=request, signature=given, tell=tell))
    _judge(report, allow_faults)
    request = _with_warm_up(request, report)
    given = _derived(folder, report) if signature == _AUTO else given
    collected = bundle.collect(folder, name, request, given)
    with display.bytes(f"packing {folder}", collected.size_bytes) as advance:
        written = bundle.write(collected, output, advance)
    _tell(collected, written)
    if as_json:
        _print_json(written, report)
    else:
        click.echo(written.path)


# --- with DIR ------------------------------------------------------------------------------


def _request(
    folder: Path, file: Path | None, content_type: str | None, accept: str | None, warm_up: bool
) -> Sample | None:
    """Return the sample to pack, the options' or the folder's own; None leaves the folder as it is."""
    if file is None:
        if content_type or accept:
            raise click.UsageError("--content-type and --accept describe a sample: give --sample-request.")
        own = read_sample(str(folder)) if warm_up else None
        if warm_up and own is None:
            raise click.UsageError("--warm-up needs a request to warm up with: give --sample-request.")
        return replace(own, warm_up=own.warm_up or 1) if own else None
    try:
        body = file.read_bytes()
    except OSError as error:
        raise ToolkitError(f"{file} cannot be read: {error.strerror}.") from error
    sample = Sample(body, content_type or content_type_of(file), accept, int(warm_up))
    _check_headers(sample)
    return sample


def _check_headers(sample: Sample) -> None:
    for option, value in (("--content-type", sample.content_type), ("--accept", sample.accept)):
        if value is not None and not (value.isascii() and value.isprintable() and value.strip()):
            raise click.UsageError(f"{option} {value!r:.100} cannot be sent as a header.")


def _with_warm_up(sample: Sample | None, report: Report) -> Sample | None:
    if sample is None or sample.warm_up != 1 or report.loads is None:
        return sample
    return replace(sample, warm_up=_WARM_UP.get(report.loads.framework or "", 1))


def _judge(report: Report, allow_faults: bool) -> None:
    """Say what is wrong with the folder. Raises FaultsFound unless faults are allowed."""
    for finding in report.findings:
        if finding.level is not Level.REMARK:
            click.echo(f"{finding.level.value}: {finding.message}", err=True)
    if (number := faults(report.findings)) and not allow_faults:
        raise FaultsFound(f"{count(number, 'fault')} found; nothing was written (--allow-faults does).")


def _derived(folder: Path, report: Report) -> Signature:
    if report.signature is None:
        raise ToolkitError(
            f"the files of {folder} do not say what the model takes, so there is no signature to derive "
            "(XGBoost's and scikit-learn's do). Write one, and give --signature FILE."
        )
    return report.signature


def _tell(collected: bundle.Bundle, written: bundle.Written) -> None:
    """Say what was done, for people."""
    if collected.junk:
        click.echo(f"Left out: {shown(collected.junk)}.", err=True)
    if collected.outside:
        click.echo(f"Packed from outside of the folder, by links: {shown(collected.outside)}.", err=True)
    size = shown_bytes(written.size_bytes)
    if written.is_new:
        click.echo(f"Wrote {written.path} ({size}).", err=True)
    else:
        click.echo(
            f"{written.path} ({size}) is there already, with the same content: left as it is.", err=True
        )


def _print_json(written: bundle.Written, report: Report) -> None:
    document = {
        "path": str(written.path),
        "sha256": written.sha256,
        "size_bytes": written.size_bytes,
        "written": written.is_new,
        "report": report,
    }
    click.echo(json_text(document))


# --- as model-archiver ---------------------------------------------------------------------


def _pack_as_model_archiver(order: Order) -> None:
    target = pack(order)
    if not handler_is_packed(order):
        click.echo(
            f"mmekit archive pack: the handler {order.handler!r} is not in {order.model_path}: the image "
            "must have it.",
            err=True,
        )
    click.echo(f"Wrote {target}.")
