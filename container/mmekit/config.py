"""Every setting once: name, type, unit, default, names and meaning; one frozen Config.

Where the values come from is ``resolution``'s business. ``docs/settings.md`` and the options of ``mmekit
serve`` are made from the declarations here, in ``connector_settings`` and in ``handler_settings``.

Names and units of SageMaker's variables: contract of sagemaker-inference 1.10
(``environment.py``, ``parameters.py``) and of AWS's XGBoost and scikit-learn containers
(``serving_mms.py``). Keys and MMS's defaults: MMS's ``util/ConfigManager.java``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mmekit import parsers
from mmekit.address import Address
from mmekit.connector_settings import ConnectorSettings
from mmekit.handler_settings import HandlerSettings
from mmekit.settings import Setting, setting, settings_of

MIB = 1024 * 1024


@dataclass(frozen=True)
class Config(HandlerSettings, ConnectorSettings):
    """All settings of one server; see the declarations below for units and meaning."""

    #: Started as MMS is: its defaults, its start-up models.
    mms_mode: bool = False
    # --- configuration of Multi Model Server
    mms_config: Path | None = setting(
        None,
        {"MMS_CONFIG_FILE": parsers.path},
        "file",
        "A config.properties of MMS; switches to MMS mode. `sagemaker` takes the file that MMS brings. "
        "As in MMS, the variable wins over the option.",
    )
    engine: str = setting(
        "native",
        {"MMEKIT_ENGINE": parsers.choice("native", "mms")},
        "native, mms",
        "`mms` starts the real MMS, which the image must have.",
    )
    # --- models
    multi_model: bool = setting(
        False,
        {"SAGEMAKER_MULTI_MODEL": parsers.exactly_true},
        "true",
        "`true`: start empty, models are loaded over the API. Otherwise the model in "
        "`SAGEMAKER_BASE_DIR/model` is loaded at start and served on `/invocations`.",
    )
    base_dir: Path = setting(
        Path("/opt/ml"), {"SAGEMAKER_BASE_DIR": parsers.path}, "folder", "Base of the model and code folders."
    )
    model_store: Path | None = setting(
        Path("/"),
        {"MMEKIT_MODEL_STORE": parsers.path},
        "folder",
        "Folder that the `url` of a model is looked up in.",
        key={"model_store": parsers.path},
        mms_default=None,
    )
    load_models: str | None = setting(
        None,
        {"MMEKIT_LOAD_MODELS": parsers.text},
        "ALL or [NAME=]URL,…",
        "Models to load at the start, a comma list; `ALL` takes what the model store has.",
        key={"load_models": parsers.text},
        option_name="models",
    )
    allow_model_urls: bool = setting(
        False,
        {"MMEKIT_ALLOW_MODEL_URLS": parsers.flag},
        "true, false",
        "Models may be loaded from http and https URLs.",
    )
    max_unpacked_bytes: int = setting(
        10 * 1024 * MIB,
        {"MMEKIT_MAX_UNPACKED_BYTES": parsers.whole(MIB)},
        "bytes",
        "Largest size of an unpacked model archive; beyond it the load is refused.",
    )
    handler: str | None = setting(
        None,
        {"SAGEMAKER_HANDLER": parsers.text},
        "module:name",
        "Handler of the image, for models without code of their own: a function, a class, or a module.",
        key={"default_service_handler": parsers.text},
    )
    program: str = setting(
        "inference.py",
        {"SAGEMAKER_PROGRAM": parsers.text},
        "file name",
        "Program with `model_fn`, `input_fn`, `predict_fn`, `output_fn`, `transform_fn`, in a model's "
        "`code/` folder or in `SAGEMAKER_SUBMIT_DIRECTORY`.",
    )
    submit_directory: Path | None = setting(
        None,
        {"SAGEMAKER_SUBMIT_DIRECTORY": parsers.path},
        "folder",
        "Folder of the image's own program, used by models that bring none.",
        default_text="`SAGEMAKER_BASE_DIR/code`",
    )
    # --- limits of one request
    max_body_bytes: int = setting(
        25 * MIB,
        {
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": parsers.whole(1, 2047, scale=MIB),
            "SAGEMAKER_MAX_REQUEST_SIZE": parsers.whole(1),
            "MAX_CONTENT_LENGTH": parsers.whole(1),
        },
        "bytes (`SAGEMAKER_MAX_PAYLOAD_IN_MB`: MiB)",
        "Largest request body; beyond it 413.",
        key={"max_request_size": parsers.whole(1)},
        mms_default=6_553_500,
    )
    max_response_bytes: int | None = setting(
        None,
        {"SAGEMAKER_MAX_RESPONSE_SIZE": parsers.whole(1)},
        "bytes",
        "Largest answer of a model; beyond it 500.",
        key={"max_response_size": parsers.whole(1)},
        mms_default=6_553_500,
    )
    decode_input_request: bool = setting(
        False,
        {"MMEKIT_DECODE_INPUT_REQUEST": parsers.flag},
        "true, false",
        "Handlers of MMS get JSON and text bodies decoded; else as bytes.",
        key={"decode_input_request": parsers.boolean},
        mms_default=True,
    )
    invoke_timeout_s: float = setting(
        60.0,
        {
            "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": parsers.number(0),
            "SAGEMAKER_MODEL_SERVER_TIMEOUT": parsers.number(0, scale=60.0),
        },
        "seconds (`SAGEMAKER_MODEL_SERVER_TIMEOUT`: minutes, as MMS takes it)",
        "How long a model may take to answer; then 504 and its worker is replaced.",
        key={
            "default_response_timeout_seconds": parsers.unless("-1", parsers.number(0)),
            "default_response_timeout": parsers.number(0, scale=60.0),
        },
        mms_default=7200.0,
    )
    load_timeout_s: float = setting(
        350.0,
        {"MMEKIT_LOAD_TIMEOUT_SECONDS": parsers.number(0)},
        "seconds",
        "How long a load may take; SageMaker waits for 360 s.",
    )
    unregister_timeout_s: float = setting(
        350.0,
        {"MMEKIT_UNREGISTER_TIMEOUT_SECONDS": parsers.number(0)},
        "seconds",
        "How long an unload waits for the calls a model has; then they are ended with 500.",
        key={"unregister_model_timeout": parsers.number(0)},
        mms_default=120.0,
    )
    # --- limits of the server
    queue_size: int = setting(
        100,
        {"SAGEMAKER_MODEL_JOB_QUEUE_SIZE": parsers.whole(1)},
        "requests",
        "Requests that may wait for one model; beyond it 503.",
        key={"job_queue_size": parsers.whole(1)},
    )
    server_queue_size: int = setting(
        2000,
        {"MMEKIT_QUEUE_SIZE": parsers.whole(1)},
        "requests",
        "Requests that may wait for all models together; beyond it 503.",
    )
    body_budget_bytes: int = setting(
        256 * MIB,
        {"MMEKIT_BODY_BUDGET_BYTES": parsers.whole(MIB)},
        "bytes",
        "Request bodies held at once by server and workers; above it reading waits.",
    )
    max_connections: int = setting(
        10_000,
        {"MMEKIT_MAX_CONNECTIONS": parsers.whole(1)},
        "connections",
        "Open connections; beyond it 503.",
    )
    stop_timeout_s: float = setting(
        25.0,
        {"MMEKIT_STOP_TIMEOUT_SECONDS": parsers.number(0)},
        "seconds",
        "How long SIGTERM waits for requests in flight; SageMaker kills after 30 s.",
    )
    # --- workers
    copies: int = setting(
        1,
        {
            "SAGEMAKER_MODEL_SERVER_WORKERS": parsers.whole(1, 1024),
            "SAGEMAKER_NUM_MODEL_WORKERS": parsers.whole(1, 1024),
        },
        "workers",
        "Workers that hold a model from its load on; 0, in MMS mode only, registers it without.",
        key={"default_workers_per_model": parsers.whole(0, 1024)},
        mms_default=0,
    )
    max_copies: int = setting(
        4,
        {"MMEKIT_MAX_COPIES": parsers.whole(0, 1024)},
        "workers",
        "Workers that may hold a hot model; 0 never adds one.",
        mms_default=0,
    )
    workers: int | None = setting(
        None,
        {"MMEKIT_WORKERS": parsers.whole(1, 1024)},
        "processes",
        "Workers shared by models without code of their own.",
        default_text="CPUs available",
    )
    sharing: str = setting(
        "auto",
        {"MMEKIT_SHARING": parsers.choice("auto", "always", "never")},
        "auto, always, never",
        "`auto`: small models without code of their own share workers. `never`: each has its own.",
    )
    large_model_bytes: int = setting(
        64 * MIB,
        {"MMEKIT_LARGE_MODEL_BYTES": parsers.whole(0)},
        "bytes",
        "A model folder from this size on gets a worker of its own.",
    )
    max_own_workers: int | None = setting(
        None,
        {"MMEKIT_MAX_OWN_WORKERS": parsers.whole(0)},
        "processes",
        "Workers that hold one model; beyond it 507.",
        default_text="what process, descriptor and memory limits allow",
    )
    threads: int = setting(
        1,
        {"OMP_NUM_THREADS": parsers.whole(1, 1024)},
        "threads",
        "Threads of one call (OpenMP, BLAS, torch). More than 1 slows single rows once two workers are busy.",
    )
    preload: str = setting(
        "auto",
        {"MMEKIT_PRELOAD": parsers.text},
        "modules",
        "Handlers whose frameworks the template imports before workers are forked: `auto` takes all that "
        "the image has, `none` none, else names such as `mmekit_handlers.xgboost,my_module`.",
    )
    preload_model: bool = setting(
        False,
        {"MMEKIT_PRELOAD_MODEL": parsers.flag},
        "true, false",
        "Further copies of a model with its own worker are forked from one that has loaded it, and share its "
        "memory.",
        key={"preload_model": parsers.boolean},
    )
    blacklist_env_vars: re.Pattern[str] | None = setting(
        None,
        {"MMEKIT_BLACKLIST_ENV_VARS": parsers.pattern},
        "regular expression",
        "Environment variables whose whole name matches are kept from the workers.",
        key={"blacklist_env_vars": parsers.pattern},
    )
    number_of_gpu: int | None = setting(
        None,
        {"MMEKIT_NUMBER_OF_GPU": parsers.whole(0, 64)},
        "devices",
        "GPUs to use, one worker each.",
        default_text="those the container sees",
    )
    max_gpus: int | None = setting(
        None,
        {"MMEKIT_MAX_GPUS": parsers.whole(0, 64)},
        "devices",
        "At most so many of the GPUs that the container sees.",
        key={"number_of_gpu": parsers.whole(0)},
        default_text="all of them",
    )
    stall_ms: float = setting(
        50.0,
        {"MMEKIT_STALL_MS": parsers.number(0)},
        "milliseconds",
        "A call that exceeds this and its model's usual time no longer holds the other models of its worker.",
    )
    # --- memory
    memory_limit_bytes: int | None = setting(
        None,
        {"MMEKIT_MEMORY_LIMIT_BYTES": parsers.whole(64 * MIB)},
        "bytes",
        "Memory of server and models together.",
        default_text="the cgroup's limit, else the machine's memory",
    )
    memory_reserve_bytes: int | None = setting(
        None,
        {"MMEKIT_MEMORY_RESERVE_BYTES": parsers.whole(0)},
        "bytes",
        "Memory that loads leave free.",
        default_text="a sixteenth of the limit, between 64 and 128 MiB, at most an eighth",
    )
    # --- logs
    log_level: int = setting(
        20,
        {"SAGEMAKER_CONTAINER_LOG_LEVEL": parsers.log_level},
        "level",
        "Python's logging level, as a number or a name.",
        key={"debug": parsers.debug_level},
    )
    log_format: str = setting(
        "json",
        {"MMEKIT_LOG_FORMAT": parsers.choice("json", "mms")},
        "json, mms",
        "`json`: one object a line. `mms`: access log and metrics in MMS's form.",
    )
    access_log: bool = setting(
        True,
        {"MMEKIT_ACCESS_LOG": parsers.flag},
        "true, false",
        "Log a line for each request; never for pings.",
    )
    metric_time_interval_s: float = setting(
        0.0,
        {"MMEKIT_METRIC_TIME_INTERVAL_SECONDS": parsers.number_from(0)},
        "seconds",
        "How often CPU, memory and disk of the machine are logged; 0 is never.",
        key={"metric_time_interval": parsers.number_from(0)},
        mms_default=60.0,
    )
    metrics_models: int = setting(
        100,
        {"MMEKIT_METRICS_MODELS": parsers.whole(0)},
        "models",
        "Models with series of their own on `/metrics`; the others share one.",
    )

    @property
    def model_dir(self) -> Path:
        """Folder of the one model in single-model mode (AWS: your-algorithms-inference-code)."""
        return self.base_dir / "model"

    @property
    def code_dir(self) -> Path:
        """Folder of the image's own program."""
        return self.submit_directory or self.base_dir / "code"

    @property
    def single_model(self) -> bool:
        """Whether the model in ``model_dir`` is loaded at start and must load (SageMaker's hosting)."""
        return not self.multi_model and not self.mms_mode

    @property
    def max_body_setting(self) -> str:
        """The name to give in messages about ``max_body_bytes``."""
        declared = setting_of("max_body_bytes")
        return declared.keys[0][0] if self.mms_mode else declared.names[0]

    @property
    def addresses(self) -> list[Address]:
        """Where the server listens: one address of all routes, or one of inference and one of management."""
        both = [self.inference_address, self.management_address]
        one = Address("http", self.host, self.port)
        return list(dict.fromkeys(address or one for address in both))


def setting_of(field_name: str) -> Setting:
    """Return the declaration of a field of Config."""
    return settings_of(Config)[field_name]
