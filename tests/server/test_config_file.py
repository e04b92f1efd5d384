"""config.properties of MMS: which file counts, what it sets, what wins over it, what is wrong with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmekit import properties
from mmekit.address import Address
from mmekit.config import Config
from mmekit.errors import ConfigError
from mmekit.resolution import Resolution, resolve
from tests.support.server import COMMAND, Server


def resolution(
    folder: Path, text: str, environ: Mapping[str, str] | None = None, **options: str
) -> Resolution:
    """Settings in MMS mode with this config.properties."""
    file = folder / "config.properties"
    file.write_text(text, encoding="iso-8859-1")
    values = environ or {}
    return resolve(values, options, properties.load(str(file), values), mms_mode=True)


def config(folder: Path, text: str, environ: Mapping[str, str] | None = None, **options: str) -> Config:
    return resolution(folder, text, environ, **options).config


#: key, text, field, value
KEYS = [
    ("inference_address", "https://0.0.0.0:8443", "inference_address", Address("https", "0.0.0.0", 8443)),
    ("inference_address", "http://127.0.0.1", "inference_address", Address("http", "127.0.0.1", 80)),
    ("management_address", "http://127.0.0.1", "management_address", Address("http", "127.0.0.1", 8081)),
    ("management_address", "https://localhost", "management_address", Address("https", "localhost", 8444)),
    ("inference_address", "unix:/tmp/a.sock", "inference_address", Address("unix", path="/tmp/a.sock")),
    ("inference_address", "http://0.0.0.0:60000", "inference_address", Address("http", "0.0.0.0", 60000)),
    ("model_store", "/models", "model_store", Path("/models")),
    ("load_models", "ALL", "load_models", "ALL"),
    ("default_workers_per_model", "3", "copies", 3),
    ("default_workers_per_model", "0", "copies", 0),
    ("default_response_timeout", "2", "invoke_timeout_s", 120),
    ("default_response_timeout_seconds", "2", "invoke_timeout_s", 2),
    ("unregister_model_timeout", "7", "unregister_timeout_s", 7),
    ("job_queue_size", "9", "queue_size", 9),
    ("number_of_gpu", "1", "max_gpus", 1),
    ("max_request_size", "1000", "max_body_bytes", 1000),
    ("max_response_size", "1000", "max_response_bytes", 1000),
    ("decode_input_request", "false", "decode_input_request", False),
    ("default_service_handler", "a.b:handle", "handler", "a.b:handle"),
    ("preload_model", "true", "preload_model", True),
    ("cors_allowed_origin", "*", "cors_allowed_origin", "*"),
    ("keystore", "/k.p12", "keystore", Path("/k.p12")),
    ("private_key_file", "/k.pem", "private_key_file", Path("/k.pem")),
    ("metric_time_interval", "5", "metric_time_interval_s", 5),
]

#: field, MMS's default
DEFAULTS = [
    ("inference_address", Address("http", "127.0.0.1", 8080)),
    ("management_address", Address("http", "127.0.0.1", 8081)),
    ("model_store", None),
    ("copies", 0),
    ("invoke_timeout_s", 7200),
    ("unregister_timeout_s", 120),
    ("queue_size", 100),
    ("max_body_bytes", 6_553_500),
    ("max_response_bytes", 6_553_500),
    ("decode_input_request", True),
    ("metric_time_interval_s", 60),
]


@pytest.mark.parametrize(("key", "text", "field", "value"), KEYS)
def test_every_key_sets_its_field_in_its_unit(
    tmp_path: Path, key: str, text: str, field: str, value: object
) -> None:
    assert getattr(config(tmp_path, f"{key}={text}\n"), field) == value


@pytest.mark.parametrize(("field", "value"), DEFAULTS)
def test_what_the_file_leaves_out_has_the_default_of_mms(tmp_path: Path, field: str, value: object) -> None:
    assert getattr(config(tmp_path, ""), field) == value


def test_seconds_win_over_minutes_unless_they_are_minus_one(tmp_path: Path) -> None:
    both = "default_response_timeout=2\ndefault_response_timeout_seconds={}\n"
    assert config(tmp_path, both.format(30)).invoke_timeout_s == 30
    assert config(tmp_path, both.format(-1)).invoke_timeout_s == 120


def test_the_form_is_that_of_java_properties(tmp_path: Path) -> None:
    text = "# no key\n! none\n job_queue_size : 5\nload_models = a,\\\n    b\ncors_allowed_origin=\\u002a\n"
    found = config(tmp_path, text)
    assert (found.queue_size, found.load_models, found.cors_allowed_origin) == (5, "a,b", "*")


def test_an_option_wins_over_a_variable_over_an_mms_variable_over_the_file(tmp_path: Path) -> None:
    text = "enable_envvars_config=true\njob_queue_size=1\n"
    mms = {"MMS_JOB_QUEUE_SIZE": "2"}
    ours = {**mms, "SAGEMAKER_MODEL_JOB_QUEUE_SIZE": "3"}
    assert config(tmp_path, text).queue_size == 1
    assert config(tmp_path, text, mms).queue_size == 2
    assert config(tmp_path, text, ours).queue_size == 3
    assert config(tmp_path, text, ours, queue_size="4").queue_size == 4


def test_mms_variables_count_only_where_the_file_allows_them(tmp_path: Path) -> None:
    assert config(tmp_path, "job_queue_size=1\n", {"MMS_JOB_QUEUE_SIZE": "2"}).queue_size == 1


def test_variables_are_put_in_for_their_names(tmp_path: Path) -> None:
    found = config(tmp_path, "inference_address=http://0.0.0.0:$$PORT$$\n", {"PORT": "8099"})
    assert found.inference_address == Address("http", "0.0.0.0", 8099)


def test_the_port_that_sagemaker_binds_wins_over_the_addresses_of_the_file(tmp_path: Path) -> None:
    text = "inference_address=http://0.0.0.0:8080\nmanagement_address=http://0.0.0.0:8081\n"
    found = resolution(tmp_path, text, {"SAGEMAKER_BIND_TO_PORT": "9000"})
    assert found.config.addresses == [Address("http", "0.0.0.0", 9000)]
    assert any("SAGEMAKER_BIND_TO_PORT wins" in warning for warning in found.warnings)


def test_keys_about_the_jvm_give_one_warning_and_unknown_ones_another(tmp_path: Path) -> None:
    text = "vmargs=-Xmx1g\nnumber_of_netty_threads=4\nuse_native_io=true\njob_queue_sise=5\nnothing=1\n"
    jvm, unknown = resolution(tmp_path, text).warnings
    assert all(key in jvm for key in ("vmargs", "number_of_netty_threads", "use_native_io"))
    assert "'job_queue_sise' (did you mean job_queue_size?)" in unknown
    assert "'nothing'" in unknown


#: text, what the error says
BROKEN = [
    ("job_queue_size=many", ["job_queue_size", "'many'", "a whole number from 1"]),
    ("job_queue_size=0", ["job_queue_size", "'0'"]),
    ("default_workers_per_model=-1", ["default_workers_per_model", "'-1'", "from 0"]),
    ("inference_address=ftp://a", ["inference_address", "'ftp://a'", "http://HOST"]),
    ("inference_address=http://a:99999", ["inference_address", "65535"]),
    ("decode_input_request=maybe", ["decode_input_request", "'maybe'", "true or false"]),
    ("blacklist_env_vars=(", ["blacklist_env_vars", "'('"]),
    ("model_store=$$NOT_THERE$$", ["model_store", "NOT_THERE", "not set"]),
    ("enable_envvars_config=perhaps", ["enable_envvars_config", "'perhaps'"]),
    ("job_queue_size=\\u12", ["not a properties file"]),
]


@pytest.mark.parametrize(("text", "parts"), BROKEN)
def test_a_broken_value_ends_the_start_and_says_key_value_and_what_was_expected(
    tmp_path: Path, text: str, parts: list[str]
) -> None:
    file = tmp_path / "config.properties"
    file.write_text(text + "\n")
    done = subprocess.run(
        [COMMAND, "serve", "--mms-config", file],
        env={**os.environ, "MMEKIT_PRELOAD": "none"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 78, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for part in [str(file), *parts]:
        assert part in done.stderr


@pytest.mark.parametrize("name", ["missing.properties", "."])
def test_a_file_that_cannot_be_read_ends_the_start(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        properties.load(str(tmp_path / name), {})


def test_values_that_may_be_meant_otherwise_give_warnings(tmp_path: Path) -> None:
    text = "model_store=/not/there\nkeystore=/k.p12\nprivate_key_file=/k.pem\n"
    file = f"{tmp_path}/config.properties"
    assert resolution(tmp_path, text).warnings == [
        f"{file}: model_store=/not/there: there is no such folder, so no models will be found there.",
        f"{file}: private_key_file has no effect: none of the addresses is https.",
        f"{file}: keystore has no effect: none of the addresses is https.",
    ]
    https = f"{text}inference_address=https://127.0.0.1:8443\nmodel_store={tmp_path}\n"
    assert resolution(tmp_path, https).warnings == []


def test_the_variable_names_the_file_before_the_option(tmp_path: Path) -> None:
    assert properties.locate({"MMS_CONFIG_FILE": "a"}, "b") == "a"
    assert properties.locate({}, "b") == "b"
    assert properties.locate({"MMS_CONFIG_FILE": ""}, None) is None


def test_sagemaker_is_the_file_that_mms_brings() -> None:
    environ = {
        "SAGEMAKER_MODEL_STORE": "/store",
        "SAGEMAKER_BIND_TO_PORT": "8080",
        "SAGEMAKER_RESPONSE_TIMEOUT": "3",
        "SAGEMAKER_NUM_MODEL_WORKERS": "2",
        "SAGEMAKER_HANDLER": "service:handle",
        "SAGEMAKER_MAX_RESPONSE_SIZE": "1000",
        "SAGEMAKER_MAX_REQUEST_SIZE": "2000",
    }
    found = resolve(environ, {}, properties.load("sagemaker", environ), mms_mode=True).config
    assert (found.model_store, found.copies, found.handler) == (Path("/store"), 2, "service:handle")
    assert (found.max_response_bytes, found.max_body_bytes, found.invoke_timeout_s) == (1000, 2000, 180)
    assert found.decode_input_request is False
    assert len(found.addresses) == 1


def test_variables_that_are_blacklisted_do_not_reach_handlers(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "service.py").write_text(
        "import os\ndef handle(data, context):\n"
        "    return None if data is None else [[name in os.environ for name in ('A_SECRET', 'A_NAME')]]\n"
    )
    file = tmp_path / "config.properties"
    file.write_text("blacklist_env_vars=.*SECRET\nmodel_store=/\n")
    with Server("--mms-config", str(file), A_SECRET="x", A_NAME="y") as server:
        assert server.load("m", model, handler="service:handle", initial_workers=1).status == 200
        assert server.invoke("m").json == [False, True]


def test_the_settings_command_shows_where_values_come_from_and_no_password(tmp_path: Path) -> None:
    file = tmp_path / "c.properties"
    file.write_text("job_queue_size=7\nkeystore_pass=hush\nodd=1\n")
    done = subprocess.run(
        [COMMAND, "settings", "--mms-config", file],
        env={**os.environ, "COLUMNS": "500", "MMEKIT_STALL_MS": "80"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    rows = {line.split("│")[1].strip(): line for line in done.stdout.splitlines() if line.startswith("│")}
    assert "c.properties: job_queue_size" in rows["queue_size"]
    assert "MMEKIT_STALL_MS" in rows["stall_ms"]
    assert "default" in rows["program"]
    assert "hush" not in done.stdout
    assert "'odd'" in done.stderr


@given(st.binary(max_size=400))
def test_any_bytes_are_settings_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.properties"
    file.write_bytes(data)
    message = ""
    try:
        resolve({}, {}, properties.load(str(file), {}), mms_mode=True)
    except ConfigError as error:
        message = error.message
    assert not message or (message.endswith(".") and str(file) in message)
