"""``python -m benchmarks``: run suites, print the report of a run."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import click

from benchmarks import environments, processes
from benchmarks.bench import FULL, QUICK, Bench
from benchmarks.load import LoadFailed, require_wrk
from benchmarks.report import markdown
from benchmarks.results import Results, machine
from benchmarks.servers import SERVERS, ServerFailed
from benchmarks.suites import SUITES

_RESULTS = Path(__file__).parent / "results" / "latest.json"

#: Between these two lines of a document the report is put in.
_MARKS = ("<!-- results: python -m benchmarks report --into -->", "<!-- end of results -->")


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Measure mmekit beside the in-process limit and Multi Model Server. Without a command: run."""
    if context.invoked_subcommand is None:
        context.invoke(run)


@main.command()
@click.option("--suite", "suites", multiple=True, type=click.Choice(list(SUITES)), help="Default: all.")
@click.option("--server", "servers", multiple=True, type=click.Choice(list(SERVERS)), help="Default: all.")
@click.option("--model", "models", multiple=True, type=click.Choice(FULL.models), help="Default: all.")
@click.option("--quick", is_flag=True, help="A few minutes, to see that it works; the figures mean little.")
@click.option("--out", type=click.Path(path_type=Path), default=_RESULTS, show_default=True)
@click.option("--keep", is_flag=True, help="Keep models and the servers' logs, and say where.")
@click.option("--allow-editable", is_flag=True, help="Measure an editable install, to try the harness.")
def run(
    suites: tuple[str, ...],
    servers: tuple[str, ...],
    models: tuple[str, ...],
    quick: bool,
    out: Path,
    keep: bool,
    allow_editable: bool,
) -> None:
    """Run suites and write a results file.

    \b
    make bench
    make bench ARGS="run --quick --suite warm --server mmekit --server inline"
    """
    # Leave by the same way as Ctrl-C: every server is ended.
    signal.signal(signal.SIGTERM, _interrupt)
    chosen = list(servers or SERVERS)
    plan = QUICK if quick else FULL
    if models:
        plan = replace(plan, models=models)
    try:
        require_wrk()
        with_mms = any(name.startswith("mms") for name in chosen)
        installations = environments.prepare(with_mms, allow_editable)
    except (LoadFailed, environments.EnvironmentFailed) as error:
        raise click.ClickException(str(error)) from None
    command = "python -m benchmarks " + shlex.join(sys.argv[1:])
    about: dict[str, Any] = {
        "command": command,
        "machine": machine(),
        "versions": environments.versions(installations),
        "memory_from": _memory_from(),
    }
    results = Results(about)
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="mmekit-bench-"))
    try:
        bench = Bench(plan, folder, results, chosen, installations)
        for name in suites or SUITES:
            click.secho(f"{name} ({(time.monotonic() - started) / 60:.1f} min)", bold=True)
            _run_suite(bench, name)
    finally:
        if keep:
            click.echo(f"models and logs: {folder}")
        else:
            shutil.rmtree(folder)
        about["minutes"] = round((time.monotonic() - started) / 60, 1)
        results.save(out)
        click.echo(f"wrote {out}")
    click.echo(markdown(results))


def _run_suite(bench: Bench, name: str) -> None:
    try:
        SUITES[name](bench)
    except (LoadFailed, ServerFailed, processes.ProcessFailed) as error:
        bench.note_invalid(name, "the rest of the suite", "", error)


@main.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path), default=_RESULTS)
@click.option("--into", type=click.Path(exists=True, path_type=Path), help="Put it between the marks there.")
def report(file: Path, into: Path | None) -> None:
    """Print the markdown report of a results file."""
    text = markdown(Results.read(file))
    if into is None:
        click.echo(text)
        return
    before, mark, rest = into.read_text().partition(_MARKS[0])
    _, end, after = rest.partition(_MARKS[1])
    if not mark or not end:
        raise click.ClickException(f"{into} needs two lines, {_MARKS[0]} and {_MARKS[1]}")
    into.write_text(f"{before}{mark}\n\n{text}\n{end}{after}")


def _memory_from() -> str:
    group = processes.MemoryGroup.create("bench-try")
    if group is None:
        return "sum of proportional set sizes (no control group could be made)"
    group.remove()
    return f"control group (version {group.version}), page cache left out"


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
