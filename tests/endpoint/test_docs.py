"""docs/local-endpoint.md says what is so: options, examples, metrics, events, and its programs run."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from mmekit_endpoint.api.control.services import BACKENDS
from mmekit_endpoint.command import local
from mmekit_endpoint.fleet.views import EndpointView
from mmekit_endpoint.telemetry import cloudwatch, prometheus
from mmekit_endpoint.telemetry.statistics import Statistics
from tests.endpoint.service import COMMAND, Service
from tests.endpoint.telemetry import endpoint_view, instance_view, model_view
from tests.support.server import until

ROOT = Path(__file__).parent.parent.parent
SOURCES = ROOT / "endpoint" / "mmekit_endpoint"
PAGE = (ROOT / "docs" / "local-endpoint.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("examples/*/*.md"))]


class Block(NamedTuple):
    """A fenced block; ``runs`` is "" for one that is only shown, else how it is run."""

    runs: str
    language: str
    text: str


def _blocks(page: str) -> list[Block]:
    found = re.findall(r"(?m)^(?:<!-- (runs[^>]*) -->\n)?```(\w*)\n(.*?)^```$", page, re.DOTALL)
    return [Block(*groups) for groups in found]


def _rows(page: str) -> list[list[str]]:
    """Return the cells of all rows of tables."""
    return [[cell.strip() for cell in line.split("|")] for line in re.findall(r"(?m)^\|(.*)\|$", page)]


# --- options


def _options(command: click.Command) -> list[click.Option]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


def _default(option: click.Option) -> str:
    """Return a default as the tables have it, or "" for one that they say in words."""
    value = option.default
    if option.is_flag:
        return "off"
    if isinstance(value, int | float):
        return f"`{value:g}`"
    return f"`{value}`" if isinstance(value, str) else ""


@pytest.mark.parametrize("option", _options(local), ids=lambda option: option.opts[0])
def test_every_option_has_a_row_with_its_default(option: click.Option) -> None:
    (row,) = [row for row in _rows(PAGE) if row[0] == f"`{option.opts[0]}`" and len(row) == 4]
    assert row[1] == _default(option) or (not _default(option) and row[1])
    assert row[3], "its meaning"


@pytest.mark.parametrize("name", sorted(local.commands))
def test_every_option_of_a_command_has_a_row_with_its_default(name: str) -> None:
    for option in _options(local.commands[name]):
        (row,) = [row for row in _rows(PAGE) if f"`{name}`" in row[0] and row[1] == f"`{option.opts[0]}`"]
        assert row[2] == _default(option)


def test_no_row_is_of_an_option_that_is_gone() -> None:
    known = {option.opts[0] for command in (local, *local.commands.values()) for option in _options(command)}
    shown = {
        name for row in _rows(PAGE) for cell in row[:2] for name in re.findall(r"^`(--[a-z0-9-]+)`$", cell)
    }
    assert shown <= known


# --- examples


def _commands() -> Iterator[tuple[str, str]]:
    """Yield (page, command line) of all that begins with `mmekit local`, in blocks, in text and in help."""
    for page in PAGES:
        text = page.read_text()
        for block in _blocks(text):
            lines = block.text.replace("\\\n", " ").splitlines()
            yield from ((page.name, line) for line in lines if line.startswith("mmekit local"))
        inline = re.findall(r"`(mmekit local[^`\n]*)`", re.sub(r"(?ms)^```.*?^```$", "", text))
        yield from ((page.name, line) for line in inline if not re.search(r"[…|]", line))
    for command in (local, *local.commands.values()):
        for example in re.findall(r"mmekit local[^,]*", command.epilog or ""):
            yield "help", example


@pytest.mark.parametrize(("page", "line"), sorted({*_commands()}))
def test_every_example_is_a_command_that_is_understood(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(re.sub(r"\s&(\s|$)", " ", line), comments=True)[2:]
    if "--models" in arguments:
        Path(arguments[arguments.index("--models") + 1]).mkdir()
    command: click.Command = local
    if arguments and arguments[0] in local.commands:
        command = local.commands[arguments.pop(0)]
    command.make_context("mmekit local", arguments)  # raises click.UsageError


def test_there_are_examples() -> None:
    assert len({line for _, line in _commands()}) > 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the programs of the page run in, one after the other."""
    return tmp_path_factory.mktemp("examples")


RUNNABLE = [block for block in _blocks(PAGE) if block.runs]


def _run(block: Block, folder: Path, environ: dict[str, str], python: Path | str = sys.executable) -> None:
    if block.runs == "runs: pytest":
        (folder / "test_example.py").write_text(block.text)
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"]
    elif block.language == "python":
        command = [python, "-c", block.text]
    else:
        command = ["bash", "-euo", "pipefail", "-c", block.text]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def service(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """What the page's first `mmekit local` starts, with the archive that its first program makes."""
    _run(RUNNABLE[0], folder, dict(os.environ))
    lines = (line for block in _blocks(PAGE) for line in block.text.splitlines())
    line = next(line for line in lines if line.startswith("mmekit local"))
    options = [str(folder / "models") if word == "./models" else word for word in shlex.split(line)[2:]]
    assert str(folder / "models") in options
    # The page creates endpoints and calls them at once: a busy machine may need more than ten seconds.
    options += ["--settle", "45"]
    with Service(tmp_path_factory.mktemp("state"), *options, program=None) as service:
        yield service


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `aws`: where the tools are borrowed from another environment their commands are not."""
    folder = tmp_path_factory.mktemp("commands")
    aws = folder / "aws"
    aws.write_text(f'#!/bin/sh\nexec {sys.executable} -m awscli "$@"\n')
    aws.chmod(0o755)
    return folder


@pytest.mark.parametrize("number", range(1, len(RUNNABLE)))
def test_the_programs_of_the_page_run(
    number: int, folder: Path, service: Service, commands: Path, request: pytest.FixtureRequest
) -> None:
    block = RUNNABLE[number]
    needs = block.runs.removeprefix("runs: ")
    python = request.getfixturevalue(needs) if needs.startswith("sdk") else sys.executable
    environ = service.environ | {
        "PATH": os.pathsep.join([str(COMMAND.parent), str(commands), os.environ["PATH"]]),
        "AWS_ENDPOINT_URL": service.url,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    until(lambda: service.status("local") == "InService", 60, "the endpoint of --models")
    _run(block, folder, environ, python)


def test_enough_programs_run() -> None:
    assert len(RUNNABLE) >= 7
    assert RUNNABLE[0].language == "bash"


# --- the architecture


def test_every_module_has_a_row_in_the_architecture() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    section = page.partition("### Who does what in the endpoint")[2].partition("\n### ")[0]
    named = {name for row in _rows(section) for name in re.findall(r"`(?:[\w/]+/)?([\w*]+\.py)`", row[0])}
    modules = {path.name for path in SOURCES.rglob("*.py") if not path.name.startswith("__")}
    assert [module for module in modules if not any(fnmatch(module, name) for name in named)] == []
    assert [name for name in named if not any(fnmatch(module, name) for module in modules)] == []


# --- what is published


def _everything() -> tuple[Statistics, EndpointView]:
    """Return statistics and a view in which nothing is missing."""
    statistics = Statistics()
    counted = statistics.variant("e", "AllTraffic")
    for status in (200, 400, 500, 0):
        counted.invocation("m", status, 1000.0, 100.0, status == 200)
    counted.waited("m", 10.0)
    counted.downloaded("m", 10.0, 1)
    counted.loaded("m", 10.0)
    counted.unloaded("m", 10.0)
    models = [model_view("m", in_flight=1, waiting=1)]
    instance = instance_view("i", "in service", models=models, gpu_percent=1.0, gpu_memory_percent=1.0)
    return statistics, endpoint_view("e", instance)


def test_the_table_of_cloudwatchs_metrics_is_complete() -> None:
    statistics, view = _everything()
    (variant,) = view.variants
    entries = cloudwatch.Entries("e", "AllTraffic", datetime.now(timezone.utc))
    published = {
        (entry.namespace, entry.datum["MetricName"])
        for entry in (
            *entries.counted(statistics.variant("e", "AllTraffic").take_window(), 1),
            *entries.of_instances(variant),
            *entries.concurrency(variant),
        )
    }
    namespaces = (cloudwatch.SAGEMAKER, cloudwatch.ENDPOINTS)
    shown = {
        (row[1].strip("`"), name)
        for row in _rows(PAGE)
        if len(row) == 3 and row[1].strip("`") in namespaces
        for name in re.findall(r"`(\w+)`", row[0])
    }
    assert shown == published


def test_the_table_of_prometheus_metrics_is_complete() -> None:
    statistics, view = _everything()
    text = prometheus.render(statistics, [view]).decode()
    published = set()
    for name, kind in re.findall(r"(?m)^# TYPE mmekit_endpoint_(\w+) (\w+)$", text):
        published.add(name if kind != "counter" or name.endswith("_total") else f"{name}_total")
    section = PAGE.partition("**Prometheus**")[2].partition("\n## ")[0]
    shown = {name for row in _rows(section) for name in re.findall(r"`(\w+)`", row[0])}
    assert shown == published


def test_the_list_of_events_is_complete() -> None:
    kinds = {f"endpoint_{status}" for status in ("inservice", "failed", "outofservice")}
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            kinds |= set(_kinds(node))
    section = PAGE.partition("**Events**")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", section)) == kinds


def _kinds(node: ast.AST) -> Iterator[str]:
    """Yield the kind of event that a call writes down."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return
    name = node.func.attr
    of_log = name == "add" and isinstance(node.func.value, ast.Attribute) and node.func.value.attr == "events"
    if of_log or name in ("event", "_event"):
        for argument in node.args:
            # The first text that is a name of this form; methods take an endpoint or nothing before it.
            if isinstance(argument, ast.Constant) and re.fullmatch(r"[a-z_]+", str(argument.value)):
                yield str(argument.value)
                return


def test_the_services_around_are_named() -> None:
    names = {
        "s3": "S3",
        "sts": "STS",
        "iam": "IAM",
        "ecr": "ECR",
        "logs": "CloudWatch Logs",
        "monitoring": "CloudWatch",
    }
    assert BACKENDS.keys() == names.keys()
    section = PAGE.partition("## What is emulated")[2].partition("\n## ")[0]
    assert all(name in section for name in names.values())
