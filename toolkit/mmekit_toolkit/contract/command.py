"""``mmekit contract``: checks a server, an image or a command against SageMaker's multi-model contract."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from mmekit_toolkit.command import Command
from mmekit_toolkit.errors import FaultsFound, ToolkitError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mmekit_toolkit.contract.clause import Clause
    from mmekit_toolkit.contract.machine_reports import Run

#: Columns of a table that nobody sees on a terminal.
_WIDTH = 110
#: As in ``contract.runner``, which is imported late: help must be quick.
_START_TIMEOUT_S = 240.0
#: Opened before anything is checked: one that cannot be written is told at once.
_REPORT = click.File("w", encoding="utf-8", lazy=False)


class _CommandAfterDashes(Command):
    """Keeps what stands after ``--`` as it is: a command whose own options are not ours."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta["mmekit.contract.command"] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)


def _variables(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for value, (name, equals, _value) in zip(values, pairs, strict=True):
        if not name or not equals:
            raise click.BadParameter(f"expected NAME=VALUE, not {value!r}")
    return {name: value for name, _equals, value in pairs}


@click.command(
    cls=_CommandAfterDashes,
    options_metavar="[OPTIONS]",
    epilog="""\b
Examples:
  mmekit contract churn:1.0 --clause load-conflict --junit contract.xml
  mmekit contract churn:1.0 --model churn-model --payload payload.csv --clause invoke
  mmekit contract --clause load --clause unload -- mmekit serve
  mmekit contract --list
""",
)
@click.argument("target", required=False, metavar="URL | IMAGE | -- COMMAND")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Check with this model's folder, for servers that cannot load the kit's own model.",
)
@click.option("--payload", type=click.Path(path_type=Path), metavar="FILE", help="A request that it answers.")
@click.option("--content-type", metavar="TYPE", help="Type of that request. Else by the file's suffix.")
@click.option("--accept", metavar="TYPE", help="Type of the answer to ask for.")
@click.option(
    "--models-dir",
    metavar="DIR[:AS]",
    help="Folder that a server at a URL sees too, as AS. Else a temporary one, under the same path.",
)
@click.option(
    "--env",
    "environment",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_variables,
    help="Variable for the image or command; repeatable.",
)
@click.option("--platform", help="Platform of the image, such as linux/amd64.")
@click.option(
    "--start-timeout",
    "start_timeout_s",
    type=click.FloatRange(0, min_open=True),
    default=_START_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="Until /ping must answer after the start.",
)
@click.option("--clause", "names", multiple=True, metavar="NAME", help="Check this one alone; repeatable.")
@click.option("--list", "list_", is_flag=True, help="List the clauses with their sources; check nothing.")
@click.option(
    "--json", "json_file", type=_REPORT, metavar="FILE", help="Write the outcomes as JSON; - is stdout."
)
@click.option("--junit", "junit_file", type=_REPORT, metavar="FILE", help="Write the outcomes as JUnit XML.")
@click.pass_context
def contract(
    context: click.Context,
    /,
    target: str | None,
    names: tuple[str, ...],
    list_: bool,
    json_file: TextIO | None,
    junit_file: TextIO | None,
    **options: Any,  # Any: as declared above
) -> None:
    """Check a container for multi-model endpoints, clause by clause, against what SageMaker asks of it.

    URL is a server that runs with SAGEMAKER_MULTI_MODEL=true; nothing is started or ended, and models are put
    into a folder that it must see. IMAGE is run by docker with the argument serve and the models mounted
    read-only, and once more with little memory. COMMAND is run as it is, with SAGEMAKER_BIND_TO_PORT, and
    ended with all that it has started.

    Each clause passes, fails or is skipped with the reason. Exit code: 0 nothing failed, 3 a clause failed, 1
    it could not be checked.
    """
    clauses = _selected(names)
    if list_:
        from mmekit_toolkit.contract import report

        click.echo(report.listing(clauses))
        return
    command = context.meta.get("mmekit.contract.command", ())
    if (target is None) == (not command):
        raise click.UsageError("Expected one of: a URL, an image, or -- and a command.")
    if (options["model"] is None) != (options["payload"] is None):
        raise click.UsageError("--model and --payload go together: a model and a request that it answers.")
    run = _check(target, command, clauses, options)
    _write(run, json_file, junit_file)
    if run.stopped is not None:
        raise run.stopped
    _leave_with_faults(run)


def _selected(names: Sequence[str]) -> list[Clause]:
    from mmekit_toolkit.contract.clauses import CLAUSES

    known = {clause.name for clause in CLAUSES}
    for name in names:
        if name not in known:
            raise click.BadParameter(f"{name!r} is no clause; --list lists them", param_hint="--clause")
    return [clause for clause in CLAUSES if not names or clause.name in names]


def _check(target: str | None, command: Sequence[str], clauses: list[Clause], options: dict[str, Any]) -> Run:
    from mmekit_toolkit.contract import progress
    from mmekit_toolkit.contract.choosing import chosen, sample_of
    from mmekit_toolkit.contract.machine_reports import Run
    from mmekit_toolkit.contract.runner import Session

    sample = sample_of(options["model"], options["payload"], options["content_type"], options["accept"])
    folder, environment, platform = options["models_dir"], options["environment"], options["platform"]
    with chosen(target, command, models_dir=folder, environment=environment, platform=platform) as subject:
        run = Run(subject.name, subject.form, datetime.now(timezone.utc), total=len(clauses))
        began_s = time.monotonic()
        try:
            with (
                Session(subject, sample, options["start_timeout_s"]) as session,
                progress.shown(run.total) as (begin, end),
            ):
                for clause in clauses:
                    begin(clause)
                    run.outcomes.append(session.check(clause))
                    end(run.outcomes[-1])
                run.not_started = session.not_started
        except KeyboardInterrupt as error:
            done = f"interrupted after {len(run.outcomes)} of {run.total} clauses"
            raise KeyboardInterrupt(
                f"{done}; what was started was ended, what was loaded unloaded."
            ) from error
        except Exception as error:  # noqa: BLE001  # raised again, when what was found until then is told
            run.stopped = error
        run.took_s = time.monotonic() - began_s
    return run


def _write(run: Run, json_file: TextIO | None, junit_file: TextIO | None) -> None:
    from mmekit_toolkit.contract import machine_reports

    # What a person reads comes first: a full disk must not hide it.
    if json_file is None or json_file.name != "<stdout>":
        _tell(run)
    for file, text in ((junit_file, machine_reports.as_junit), (json_file, machine_reports.as_json)):
        if file is not None:
            file.write(text(run))
            file.flush()


def _tell(run: Run) -> None:
    from mmekit_toolkit.contract import report
    from mmekit_toolkit.contract.verdict import Verdict

    if run.stopped is not None and run.count(Verdict.SKIPPED) == len(run.outcomes):
        return  # nothing was found; why it stopped says all
    _print(report.table(run.outcomes))
    for outcome in report.in_order(run.outcomes):
        if outcome.verdict is Verdict.FAILED:
            click.echo(report.block(outcome) + "\n")
    missing = run.total - len(run.outcomes)
    not_checked = f", {missing} not checked" if missing else ""
    counts = f"{report.summary(run.outcomes)}{not_checked}"
    click.echo(f"{run.form.value} {run.subject}: {counts} in {run.took_s:.0f} s")


def _leave_with_faults(run: Run) -> None:
    from mmekit_toolkit.contract.verdict import Verdict

    failed = [outcome.clause.name for outcome in run.outcomes if outcome.verdict is Verdict.FAILED]
    if failed:
        raise FaultsFound(f"{len(failed)} of {len(run.outcomes)} clauses failed: {', '.join(failed)}.")
    # Clauses that were chosen without the one that names the fault: silence would look like success.
    if run.not_started:
        raise ToolkitError(f"the server could not be started: {run.not_started.message}.")
    if run.count(Verdict.SKIPPED) == len(run.outcomes):
        raise ToolkitError(f"nothing could be checked: {run.outcomes[0].reason}.")


def _print(what: RenderableType) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else _WIDTH).print(what)
