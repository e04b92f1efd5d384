"""Settings: each variable with its unit, what a wrong value is told, and where settings are shown."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mmekit.config import Config
from mmekit.errors import ConfigError
from mmekit.resolution import resolve
from mmekit.settings import settings_of
from mmekit.settings_table import settings_markdown
from tests.support.server import COMMAND, Server, image_server, plain_model

ROOT = Path(__file__).parent.parent.parent
MIB = 1024 * 1024

#: What the issue names, with the units of sagemaker-inference and AWS's containers.
VALUES: list[tuple[str, str, str, Any]] = [
    ("SAGEMAKER_MULTI_MODEL", "true", "multi_model", True),
    ("SAGEMAKER_MULTI_MODEL", "True", "multi_model", False),
    ("SAGEMAKER_MULTI_MODEL", "1", "multi_model", False),
    ("SAGEMAKER_BIND_TO_PORT", "8090", "port", 8090),
    ("SAGEMAKER_SAFE_PORT_RANGE", "25000-25999", "safe_port_range", (25000, 25999)),
    ("SAGEMAKER_BASE_DIR", "/srv/ml", "base_dir", Path("/srv/ml")),
    ("SAGEMAKER_MODEL_SERVER_WORKERS", "3", "copies", 3),
    ("SAGEMAKER_NUM_MODEL_WORKERS", "2", "copies", 2),
    ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "2", "invoke_timeout_s", 120.0),
    ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "0.5", "invoke_timeout_s", 30.0),
    ("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "45", "invoke_timeout_s", 45.0),
    ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "6", "max_body_bytes", 6 * MIB),
    ("SAGEMAKER_MAX_REQUEST_SIZE", "1000", "max_body_bytes", 1000),
    ("MAX_CONTENT_LENGTH", "2000", "max_body_bytes", 2000),
    ("SAGEMAKER_HANDLER", "module:function", "handler", "module:function"),
    ("SAGEMAKER_PROGRAM", "serve.py", "program", "serve.py"),
    ("SAGEMAKER_SUBMIT_DIRECTORY", "/srv/code", "submit_directory", Path("/srv/code")),
    ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/csv", "default_accept", "text/csv"),
    ("SAGEMAKER_CONTAINER_LOG_LEVEL", "10", "log_level", 10),
    ("SAGEMAKER_CONTAINER_LOG_LEVEL", "ERROR", "log_level", 40),
    ("SAGEMAKER_MODEL_JOB_QUEUE_SIZE", "7", "queue_size", 7),
    ("SAGEMAKER_INFERENCE_OUTPUT", "labels,probability", "inference_output", "labels,probability"),
    ("SAGEMAKER_INFERENCE_ENSEMBLE", "false", "inference_ensemble", False),
    ("SAGEMAKER_BATCH", "true", "batch", True),
    ("OMP_NUM_THREADS", "2", "threads", 2),
    ("MMEKIT_LOAD_TIMEOUT_SECONDS", "1.5", "load_timeout_s", 1.5),
    ("MMEKIT_STOP_TIMEOUT_SECONDS", "20", "stop_timeout_s", 20.0),
    ("MMEKIT_BODY_BUDGET_BYTES", str(MIB), "body_budget_bytes", MIB),
    ("MMEKIT_MEMORY_LIMIT_BYTES", str(64 * MIB), "memory_limit_bytes", 64 * MIB),
    ("MMEKIT_SHARING", "Never", "sharing", "never"),
]

WRONG: list[tuple[str, str, str]] = [
    ("SAGEMAKER_BIND_TO_PORT", "http", "a whole number from 0 to 65535"),
    ("SAGEMAKER_BIND_TO_PORT", "65536", "a whole number from 0 to 65535"),
    ("SAGEMAKER_BIND_TO_PORT", "80.5", "a whole number from 0 to 65535"),
    ("SAGEMAKER_SAFE_PORT_RANGE", "25999-25000", "two port numbers FIRST-LAST, such as 25000-25999"),
    ("SAGEMAKER_SAFE_PORT_RANGE", "25000", "two port numbers FIRST-LAST, such as 25000-25999"),
    ("SAGEMAKER_MODEL_SERVER_WORKERS", "0", "a whole number from 1 to 1024"),
    ("SAGEMAKER_NUM_MODEL_WORKERS", "all", "a whole number from 1 to 1024"),
    ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "-1", "a number above 0"),
    ("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "nan", "a number above 0"),
    ("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "inf", "a number above 0"),
    ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "2048", "a whole number from 1 to 2047"),
    ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "6MB", "a whole number from 1 to 2047"),
    ("SAGEMAKER_MAX_REQUEST_SIZE", "0", "a whole number from 1 up"),
    ("SAGEMAKER_MAX_REQUEST_SIZE", "9" * 5000, "a whole number from 1 up"),
    ("MAX_CONTENT_LENGTH", "-5", "a whole number from 1 up"),
    ("SAGEMAKER_CONTAINER_LOG_LEVEL", "loud", "a level of Python's logging"),
    ("SAGEMAKER_CONTAINER_LOG_LEVEL", "60", "a number from 0 to 50"),
    ("SAGEMAKER_MODEL_JOB_QUEUE_SIZE", "0", "a whole number from 1 up"),
    ("SAGEMAKER_INFERENCE_ENSEMBLE", "maybe", "true or false"),
    ("SAGEMAKER_BATCH", "often", "true or false"),
    ("OMP_NUM_THREADS", "0", "a whole number from 1 to 1024"),
    ("MMEKIT_SHARING", "sometimes", "one of auto, always, never"),
    ("MMEKIT_XGBOOST_NTHREAD", "0", "a whole number from 1 to 1024"),
    ("MMEKIT_XGBOOST_LIBSVM_BASE", "2", "one of auto, 0, 1"),
    ("MMEKIT_SKLEARN_METHOD", "guess", "one of predict, transform, predict_proba"),
    ("MMEKIT_PYTORCH_DEVICE", "tpu", "auto, cpu, cuda or cuda:N"),
    ("MMEKIT_PYTORCH_DTYPE", "float", "one of auto, float32"),
    ("MMEKIT_PYTORCH_ROW_WISE", "2", "true or false"),
]


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SAGEMAKER_", "MMEKIT_", "OMP_"))}
    return subprocess.run(
        [COMMAND, *arguments],
        env={**inherited, "COLUMNS": "200", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("variable", "text", "field", "value"), VALUES)
def test_a_variable_sets_its_field_in_its_unit(variable: str, text: str, field: str, value: Any) -> None:
    assert getattr(resolve({variable: text}).config, field) == value


@pytest.mark.parametrize(("variable", "text", "expected"), WRONG)
def test_a_wrong_value_is_refused_with_name_value_and_what_was_expected(
    variable: str, text: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({variable: text})
    assert str(caught.value).startswith(f"{variable}={text!r} cannot be used: expected ")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        (
            {"SAGEMAKER_MODEL_SERVER_TIMEOUT": "9", "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "5"},
            "invoke_timeout_s",
            5.0,
        ),
        (
            {"SAGEMAKER_NUM_MODEL_WORKERS": "4", "SAGEMAKER_MODEL_SERVER_WORKERS": "2"},
            "copies",
            2,
        ),
        (
            {
                "MAX_CONTENT_LENGTH": "1",
                "SAGEMAKER_MAX_REQUEST_SIZE": "2",
                "SAGEMAKER_MAX_PAYLOAD_IN_MB": "3",
            },
            "max_body_bytes",
            3 * MIB,
        ),
        ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "", "MAX_CONTENT_LENGTH": "5"}, "max_body_bytes", 5),
        ({"SAGEMAKER_BIND_TO_PORT": ""}, "port", 8080),
    ],
)
def test_of_several_variables_the_first_that_is_set_counts(
    environ: dict[str, str], field: str, value: Any
) -> None:
    assert getattr(resolve(environ).config, field) == value


def test_defaults_are_those_of_sagemaker() -> None:
    config = resolve({}).config
    assert (config.host, config.port, config.multi_model) == ("0.0.0.0", 8080, False)
    assert (config.model_dir, config.code_dir) == (Path("/opt/ml/model"), Path("/opt/ml/code"))
    assert (config.invoke_timeout_s, config.load_timeout_s, config.stop_timeout_s) == (60, 350, 25)


def test_no_variable_sets_two_fields() -> None:
    names = [name for declared in settings_of(Config).values() for name in declared.names]
    assert sorted(names) == sorted(set(names))


# --- the command -----------------------------------------------------------------------------------------


def test_serve_leaves_with_78_and_the_reason_when_a_variable_is_wrong() -> None:
    done = run("serve", SAGEMAKER_MODEL_SERVER_TIMEOUT="soon")
    assert done.returncode == 78
    assert done.stderr == (
        "mmekit: SAGEMAKER_MODEL_SERVER_TIMEOUT='soon' cannot be used: expected a number above 0.\n"
    )


def test_serve_leaves_with_78_when_an_option_is_wrong() -> None:
    done = run("serve", "--queue-size", "none")
    assert done.returncode == 78
    assert done.stderr == "mmekit: --queue-size='none' cannot be used: expected a whole number from 1 up.\n"


def test_serve_leaves_with_78_when_a_preload_is_no_module() -> None:
    done = run("serve", MMEKIT_PRELOAD="os; rm -rf", SAGEMAKER_BIND_TO_PORT="0", MMEKIT_HOST="127.0.0.1")
    assert done.returncode == 78
    assert "MMEKIT_PRELOAD" in done.stderr


def test_an_option_wins_over_its_variable(tmp_path: Path) -> None:
    with Server("--max-body-bytes", "1", "--base-dir", "/srv", SAGEMAKER_MAX_PAYLOAD_IN_MB="9") as server:
        assert server.invoke("m", b"x" * (MIB + 1)).status == 413
        assert server.invoke("m", b"x" * MIB).status == 404


def test_help_of_serve_names_every_option_with_its_variable() -> None:
    text = re.sub(r"\s+", " ", run("serve", "--help").stdout)
    for field_name, declared in settings_of(Config).items():
        if declared.read_by == "server":
            assert f"{declared.option(field_name)} VALUE" in text
            assert declared.names[0] in text
    assert "Example: SAGEMAKER_MULTI_MODEL=true mmekit serve --port 8080" in text


def test_settings_shows_the_values_of_this_environment() -> None:
    done = run("settings", SAGEMAKER_MODEL_SERVER_TIMEOUT="2", MMEKIT_WORKERS="3")
    assert done.returncode == 0, done.stderr
    assert re.search(r"invoke_timeout_s .*120\.0", done.stdout)
    assert re.search(r"workers +│ 3 ", done.stdout)
    assert run("settings", MMEKIT_WORKERS="-3").returncode == 78


def test_the_documented_settings_are_those_declared() -> None:
    documented = (ROOT / "docs" / "settings.md").read_text()
    assert documented == settings_markdown(), "run: mmekit settings --markdown > docs/settings.md"
    assert run("settings", "--markdown").stdout == documented


def test_every_setting_that_code_reads_is_declared() -> None:
    declared = {name for each in settings_of(Config).values() for name in each.names}
    #: Set by the server for its own processes, never by people.
    internal = {"MMEKIT_GPU_ID", "MMEKIT_MMS_IMAGE_CODE", "MMEKIT_READY_FD"}
    internal |= {"MMEKIT_WORKER_LOG_LEVEL", "MMEKIT_WORKER_THREADS"}
    for folder in ("container", "handlers"):
        for file in (ROOT / folder).rglob("*.py"):
            read = set(re.findall(r'"((?:MMEKIT|SAGEMAKER)_[A-Z_]+)"', file.read_text()))
            assert read <= declared | internal, file


# --- what settings do -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "text", "limit"),
    [
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "1", MIB),
        ("SAGEMAKER_MAX_REQUEST_SIZE", "5000", 5000),
        ("MAX_CONTENT_LENGTH", "6000", 6000),
    ],
)
def test_the_body_limit_holds_to_the_byte_and_names_the_variable_that_wins(
    variable: str, text: str, limit: int
) -> None:
    with Server(**{variable: text}) as server:
        over = server.invoke("m", b"x" * (limit + 1))
        assert over.status == 413
        assert over.message == (
            f"The request body has {limit + 1} bytes; the limit is {limit} bytes "
            "(SAGEMAKER_MAX_PAYLOAD_IN_MB)."
        )
        assert server.invoke("m", b"x" * limit).status == 404


def test_the_model_server_timeout_is_in_minutes(tmp_path: Path) -> None:
    with image_server(tmp_path, ["m"], SAGEMAKER_MODEL_SERVER_TIMEOUT="0.01") as server:
        answer = server.invoke("m", "sleep 20")
        assert answer.status == 504
        assert "within 0.6 s" in answer.message


def test_model_server_workers_are_copies_of_each_model(tmp_path: Path) -> None:
    with image_server(tmp_path, ["m"], SAGEMAKER_MODEL_SERVER_WORKERS="2", MMEKIT_WORKERS="2") as server:
        described = server.get("/models/m").json
        assert len(described["workers"]) == described["minWorkers"] == 2
        calls = [server.later(server.invoke, "m", "facts") for _ in range(1)]
        assert calls[0].result().status == 200


def test_the_images_program_and_its_folder_can_be_set(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "serve.py").write_text(
        "def model_fn(model_dir):\n    return model_dir\n\n"
        "def transform_fn(model, input_data, content_type, accept):\n"
        "    return 'of the image', 'text/plain'\n"
    )
    with Server(SAGEMAKER_PROGRAM="serve.py", SAGEMAKER_SUBMIT_DIRECTORY=str(code)) as server:
        assert server.load("m", plain_model(tmp_path)).status == 200
        assert server.invoke("m", b"").text == "of the image"


def test_the_log_level_can_be_set(tmp_path: Path) -> None:
    with Server() as loud:
        assert loud.logged("Listening on")
    done = run(
        "serve", "--port", "0", "--host", "192.0.2.1", SAGEMAKER_CONTAINER_LOG_LEVEL="40",
        SAGEMAKER_MULTI_MODEL="true",
    )  # fmt: skip
    assert "Listening" not in done.stderr
