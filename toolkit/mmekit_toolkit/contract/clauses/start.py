"""Labels, start, port, stop, and a models folder that is read-only."""

from __future__ import annotations

import re
import time
from pathlib import Path

from mmekit_toolkit.contract.bench import Bench
from mmekit_toolkit.contract.clause import STARTED, Section, clause
from mmekit_toolkit.contract.clauses import sources
from mmekit_toolkit.contract.clauses.premises import unloaded
from mmekit_toolkit.contract.subjects import Form, NotStarted
from mmekit_toolkit.contract.verdict import Broken, Skipped

IMAGE = (Form.IMAGE,)

#: Without it CreateModel refuses Mode=MultiModel.
MULTI_MODELS = "com.amazonaws.sagemaker.capabilities.multi-models"
#: Without it a container cannot be one of several of an endpoint.
ACCEPT_BIND_TO_PORT = "com.amazonaws.sagemaker.capabilities.accept-bind-to-port"

#: Seconds in which a connection must be accepted (AWS: your-algorithms-inference-code).
CONNECT_LIMIT_S = 0.25
#: Seconds from SIGTERM to SIGKILL (AWS: your-algorithms-inference-code).
STOP_LIMIT_S = 30.0

_ATTEMPTS = 5

#: A shell's option to run a text.
_COMMAND_OPTION = re.compile("-[a-z]*c")


@clause(Section.START, sources.BUILD, IMAGE)
def label_multi_models(bench: Bench) -> None:
    """The image has the label of multi-model containers."""
    _expect_label(bench, MULTI_MODELS, "CreateModel refuses Mode=MultiModel without it")


@clause(Section.START, sources.PIPELINE, IMAGE)
def label_accept_bind_to_port(bench: Bench) -> None:
    """The image has the label of containers that take their port from a variable."""
    _expect_label(
        bench, ACCEPT_BIND_TO_PORT, "pipelines and multi-container models refuse an image without it"
    )


def _expect_label(bench: Bench, label: str, why: str) -> None:
    value = bench.subject.image().labels.get(label)
    if value != "true":
        raise Broken(
            f"docker image inspect --format '{{{{json .Config.Labels}}}}' {bench.subject.name}",
            f"the label {label}=true: {why}",
            f"{label}={value}" if value is not None else "no such label",
        )


@clause(Section.START, sources.INFERENCE_CODE, IMAGE)
def exec_form_entrypoint(bench: Bench) -> None:
    """The entrypoint is in exec form, so that signals reach the server and it sees the argument serve."""
    entrypoint = bench.subject.image().entrypoint
    shell = Path(entrypoint[0]).name if entrypoint else ""
    # The options of SHELL stand before -c, or with it, as in `bash -o pipefail -c` and `bash -lc`.
    if shell in ("sh", "bash", "dash", "ash", "zsh") and any(map(_COMMAND_OPTION.fullmatch, entrypoint[1:])):
        raise Broken(
            f"docker image inspect --format '{{{{json .Config.Entrypoint}}}}' {bench.subject.name}",
            'ENTRYPOINT ["program", "argument"], without a shell around it',
            f"ENTRYPOINT {list(entrypoint)}",
        )


@clause(Section.START, sources.INFERENCE_CODE, STARTED)
def starts_with_serve(bench: Bench) -> str:
    """Started as SageMaker starts it, with the argument serve, it answers /ping in time."""
    try:
        bench.running.ended()
    except NotStarted as error:
        expected = f"an answer of /ping within {bench.main.start_timeout_s:g} s"
        raise Broken(bench.subject.how_started, expected, error.message, error.log) from error
    return f"after {bench.main.ready_after_s:.1f} s"


@clause(Section.START, sources.PIPELINE, STARTED)
def port_from_variable(bench: Bench) -> None:
    """It listens on the port that SAGEMAKER_BIND_TO_PORT names."""
    if bench.subject.form is Form.COMMAND:
        _expect_port(bench)
    elif bench.subject.image().labels.get(ACCEPT_BIND_TO_PORT) != "true":
        raise Skipped(f"the image does not promise it: it has no label {ACCEPT_BIND_TO_PORT}")
    else:
        bench.running.ended()  # skipped where it does not start without the variable either
        try:
            with bench.another(port_from_variable=True) as other:
                _expect_port(other)
        except NotStarted as error:
            expected = "an answer of /ping on that port"
            sent = f"{bench.subject.how_started}  # with SAGEMAKER_BIND_TO_PORT besides"
            raise Broken(sent, expected, error.message, error.log) from error


def _expect_port(bench: Bench) -> None:
    if not bench.running.port_honoured:
        raise Broken(
            f"{bench.running.how_started}",
            "an answer of /ping on the port that SAGEMAKER_BIND_TO_PORT names",
            "an answer on port 8080 alone",
        )


@clause(Section.START, sources.INFERENCE_CODE)
def connect_time(bench: Bench) -> str:
    """A connection is accepted within 250 ms."""
    slowest = 0.0
    for _ in range(_ATTEMPTS):
        sent = f"a TCP connection to {bench.running.base_url}"
        try:
            took_s = bench.server.connect_s()
        except OSError as error:
            raise Broken(sent, "accepted within 250 ms", str(error)) from error
        slowest = max(slowest, took_s)
        if took_s > CONNECT_LIMIT_S:
            raise Broken(sent, "accepted within 250 ms", f"accepted after {took_s * 1000:.0f} ms")
    return f"at most {slowest * 1000:.1f} ms"


@clause(Section.START, sources.INFERENCE_CODE, STARTED)
def sigterm(bench: Bench) -> str:
    """With models loaded it ends within 30 s after SIGTERM."""
    bench.loaded()
    bench.loaded()
    bench.ended_on_purpose = True
    bench.running.terminate()
    began = time.monotonic()
    how = bench.running.wait_end(STOP_LIMIT_S)
    if how is None:
        raise Broken("SIGTERM to its first process", "its end within 30 s", "it still ran after 30 s")
    return f"it {how} after {time.monotonic() - began:.1f} s"


@clause(Section.START, sources.AWS_TESTS)
def models_read_only(bench: Bench) -> None:
    """It serves models from a folder that it may not, or does not, write to."""
    model = bench.model()
    if not bench.main.models_read_only:
        raise Broken(
            f"{bench.subject.how_started}, then a load and an invocation",
            "that models load and answer from a read-only folder",
            "they do so only where the folder can be written to",
        )
    before = _state(model.folder.parent)
    bench.loaded(model)
    unloaded(bench, model)
    after = _state(model.folder.parent)
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    if changed:
        raise Broken(
            "a load, an invocation and an unload",
            f"that nothing below {model.url} is written, changed or removed",
            f"written, changed or removed: {', '.join(changed[:10])}",
        )


def _state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what tells whether files were touched: size, mode and time of each."""
    stats = {str(path.relative_to(folder)): path.lstat() for path in folder.rglob("*")}
    return {path: (stat.st_size, stat.st_mode, stat.st_mtime_ns) for path, stat in stats.items()}
