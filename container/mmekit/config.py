"""Every setting once: name, type, unit, default, environment names and meaning; one frozen Config.

``Config.from_environ`` is called at the edge (the command line); nothing else reads the
environment for settings. ``docs/settings.md`` and the options of ``mmekit serve`` are made from
the declarations here. Handlers run in workers and read their own settings from the same
environment; those are declared here too, so that a wrong value stops the server at its start.

Names and units of SageMaker's variables: contract of sagemaker-inference 1.10
(``environment.py``, ``parameters.py``) and of AWS's XGBoost and scikit-learn containers
(``serving_mms.py``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmekit import parsers
from mmekit.errors import ConfigError
from mmekit.parsers import Parser

MIB = 1024 * 1024


@dataclass(frozen=True)
class Setting:
    """How one field of Config is set: environment names in order of precedence, each with a parser."""

    env: tuple[tuple[str, Parser], ...]
    unit: str
    meaning: str
    #: What a handler reads itself is only checked and documented here.
    read_by: str = "server"
    #: How the default is described where it depends on the machine.
    default_text: str | None = None

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.env]


def _setting(default: Any, env: dict[str, Parser], unit: str, meaning: str, **extra: Any) -> Any:
    setting = Setting(tuple(env.items()), unit, meaning, **extra)
    return dataclasses.field(default=default, metadata={"setting": setting})


@dataclass(frozen=True)
class Config:
    """All settings of one server; see the declarations below for units and meaning."""

    # --- addresses
    host: str = _setting("0.0.0.0", {"MMEKIT_HOST": parsers.text}, "address", "Address to listen on.")
    port: int = _setting(
        8080,
        {"SAGEMAKER_BIND_TO_PORT": parsers.whole(0, 65535)},
        "port",
        "Port of all routes; 0 takes a free one.",
    )
    safe_port_range: tuple[int, int] | None = _setting(
        None,
        {"SAGEMAKER_SAFE_PORT_RANGE": parsers.port_range},
        "ports",
        "Ports a container may use beside the first. The native engine needs no second port.",
    )
    # --- models
    multi_model: bool = _setting(
        False,
        {"SAGEMAKER_MULTI_MODEL": parsers.exactly_true},
        "true",
        "`true`: start empty, models are loaded over the API. Otherwise the model in "
        "`SAGEMAKER_BASE_DIR/model` is loaded at start and served on `/invocations`.",
    )
    base_dir: Path = _setting(
        Path("/opt/ml"), {"SAGEMAKER_BASE_DIR": parsers.path}, "folder", "Base of the model and code folders."
    )
    handler: str | None = _setting(
        None,
        {"SAGEMAKER_HANDLER": parsers.text},
        "module:name",
        "Handler of the image, for models without code of their own: a function, a class, or a module.",
    )
    program: str = _setting(
        "inference.py",
        {"SAGEMAKER_PROGRAM": parsers.text},
        "file name",
        "Program with `model_fn`, `input_fn`, `predict_fn`, `output_fn`, `transform_fn`, in a model's "
        "`code/` folder or in `SAGEMAKER_SUBMIT_DIRECTORY`.",
    )
    submit_directory: Path | None = _setting(
        None,
        {"SAGEMAKER_SUBMIT_DIRECTORY": parsers.path},
        "folder",
        "Folder of the image's own program, used by models that bring none.",
        default_text="`SAGEMAKER_BASE_DIR/code`",
    )
    # --- limits of one request
    max_body_bytes: int = _setting(
        25 * MIB,
        {
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": parsers.whole(1, 2047, scale=MIB),
            "SAGEMAKER_MAX_REQUEST_SIZE": parsers.whole(1),
            "MAX_CONTENT_LENGTH": parsers.whole(1),
        },
        "bytes (`SAGEMAKER_MAX_PAYLOAD_IN_MB`: MiB)",
        "Largest request body; beyond it 413.",
    )
    invoke_timeout_s: float = _setting(
        60.0,
        {
            "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": parsers.number(0),
            "SAGEMAKER_MODEL_SERVER_TIMEOUT": parsers.number(0, scale=60.0),
        },
        "seconds (`SAGEMAKER_MODEL_SERVER_TIMEOUT`: minutes, as MMS takes it)",
        "How long a model may take to answer; then 504 and its worker is replaced.",
    )
    load_timeout_s: float = _setting(
        350.0,
        {"MMEKIT_LOAD_TIMEOUT_SECONDS": parsers.number(0)},
        "seconds",
        "How long a load may take; SageMaker waits for 360 s.",
    )
    # --- limits of the server
    queue_size: int = _setting(
        100,
        {"SAGEMAKER_MODEL_JOB_QUEUE_SIZE": parsers.whole(1)},
        "requests",
        "Requests that may wait for one model; beyond it 503.",
    )
    server_queue_size: int = _setting(
        2000,
        {"MMEKIT_QUEUE_SIZE": parsers.whole(1)},
        "requests",
        "Requests that may wait for all models together; beyond it 503.",
    )
    body_budget_bytes: int = _setting(
        256 * MIB,
        {"MMEKIT_BODY_BUDGET_BYTES": parsers.whole(MIB)},
        "bytes",
        "Request bodies held at once by server and workers; above it reading waits.",
    )
    max_connections: int = _setting(
        10_000,
        {"MMEKIT_MAX_CONNECTIONS": parsers.whole(1)},
        "connections",
        "Open connections; beyond it 503.",
    )
    stop_timeout_s: float = _setting(
        25.0,
        {"MMEKIT_STOP_TIMEOUT_SECONDS": parsers.number(0)},
        "seconds",
        "How long SIGTERM waits for requests in flight; SageMaker kills after 30 s.",
    )
    # --- workers
    copies: int = _setting(
        1,
        {
            "SAGEMAKER_MODEL_SERVER_WORKERS": parsers.whole(1, 1024),
            "SAGEMAKER_NUM_MODEL_WORKERS": parsers.whole(1, 1024),
        },
        "workers",
        "Workers that hold a model from its load on (MMS: workers per model).",
    )
    max_copies: int = _setting(
        4,
        {"MMEKIT_MAX_COPIES": parsers.whole(1, 1024)},
        "workers",
        "Workers that may hold a hot model; 1 never adds one.",
    )
    workers: int | None = _setting(
        None,
        {"MMEKIT_WORKERS": parsers.whole(1, 1024)},
        "processes",
        "Workers shared by models without code of their own.",
        default_text="CPUs available",
    )
    sharing: str = _setting(
        "auto",
        {"MMEKIT_SHARING": parsers.choice("auto", "always", "never")},
        "auto, always, never",
        "`auto`: small models without code of their own share workers. `never`: each has its own.",
    )
    large_model_bytes: int = _setting(
        64 * MIB,
        {"MMEKIT_LARGE_MODEL_BYTES": parsers.whole(0)},
        "bytes",
        "A model folder from this size on gets a worker of its own.",
    )
    max_own_workers: int | None = _setting(
        None,
        {"MMEKIT_MAX_OWN_WORKERS": parsers.whole(0)},
        "processes",
        "Workers that hold one model; beyond it 507.",
        default_text="what process, descriptor and memory limits allow",
    )
    threads: int = _setting(
        1,
        {"OMP_NUM_THREADS": parsers.whole(1, 1024)},
        "threads",
        "Threads of one call (OpenMP, BLAS, torch). More than 1 slows single rows once two workers are busy.",
    )
    preload: str = _setting(
        "auto",
        {"MMEKIT_PRELOAD": parsers.text},
        "modules",
        "Handlers whose frameworks the template imports before workers are forked: `auto` takes all that "
        "the image has, `none` none, else names such as `mmekit_handlers.xgboost,my_module`.",
    )
    number_of_gpu: int | None = _setting(
        None,
        {"MMEKIT_NUMBER_OF_GPU": parsers.whole(0, 64)},
        "devices",
        "GPUs to use, one worker each.",
        default_text="those the container sees",
    )
    stall_ms: float = _setting(
        50.0,
        {"MMEKIT_STALL_MS": parsers.number(0)},
        "milliseconds",
        "A call that exceeds this and its model's usual time no longer holds the other models of its worker.",
    )
    # --- memory
    memory_limit_bytes: int | None = _setting(
        None,
        {"MMEKIT_MEMORY_LIMIT_BYTES": parsers.whole(64 * MIB)},
        "bytes",
        "Memory of server and models together.",
        default_text="the cgroup's limit, else the machine's memory",
    )
    memory_reserve_bytes: int | None = _setting(
        None,
        {"MMEKIT_MEMORY_RESERVE_BYTES": parsers.whole(0)},
        "bytes",
        "Memory that loads leave free.",
        default_text="a sixteenth of the limit, between 64 and 128 MiB, at most an eighth",
    )
    # --- logs
    log_level: int = _setting(
        20,
        {"SAGEMAKER_CONTAINER_LOG_LEVEL": parsers.log_level},
        "level",
        "Python's logging level, as a number or a name.",
    )
    # --- read by the handlers in the workers
    default_accept: str | None = _setting(
        None,
        {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": parsers.text},
        "media type",
        "Answer type when `Accept` is absent or `*/*`.",
        read_by="handlers",
        default_text="the handler's own",
    )
    inference_output: str | None = _setting(
        None,
        {"SAGEMAKER_INFERENCE_OUTPUT": parsers.text},
        "names",
        "XGBoost: what to answer, a comma list of predicted_label, labels, probability, probabilities, "
        "raw_score, raw_scores, predicted_score.",
        read_by="handlers",
    )
    inference_ensemble: bool = _setting(
        True,
        {"SAGEMAKER_INFERENCE_ENSEMBLE": parsers.flag},
        "true, false",
        "XGBoost: combine all model files of a folder; `false` takes the first by name.",
        read_by="handlers",
    )
    batch: bool = _setting(
        False,
        {"SAGEMAKER_BATCH": parsers.flag},
        "true, false",
        "Set by batch transform: CSV answers end each row with a newline.",
        read_by="handlers",
    )
    xgboost_nthread: int = _setting(
        1,
        {"MMEKIT_XGBOOST_NTHREAD": parsers.whole(1, 1024)},
        "threads",
        "XGBoost: threads of one prediction.",
        read_by="handlers",
    )
    xgboost_libsvm_base: str = _setting(
        "auto",
        {"MMEKIT_XGBOOST_LIBSVM_BASE": parsers.choice("auto", "0", "1")},
        "auto, 0, 1",
        "XGBoost: the number of the first feature in libsvm bodies; `auto` looks at the model and the body.",
        read_by="handlers",
    )
    sklearn_method: str | None = _setting(
        None,
        {
            "MMEKIT_SKLEARN_METHOD": parsers.exactly(
                "predict",
                "transform",
                "predict_proba",
                "predict_log_proba",
                "decision_function",
                "score_samples",
            )
        },
        "method",
        "scikit-learn: which method answers.",
        read_by="handlers",
        default_text="`predict`, else the first that the model has",
    )
    skops_trusted: str | None = _setting(
        None,
        {"MMEKIT_SKOPS_TRUSTED": parsers.text},
        "type names",
        "scikit-learn: types that a skops file may hold beside the usual ones, a comma list.",
        read_by="handlers",
    )
    pytorch_device: str = _setting(
        "auto",
        {"MMEKIT_PYTORCH_DEVICE": parsers.device},
        "device",
        "PyTorch: `auto`, `cpu`, `cuda` or `cuda:N`.",
        read_by="handlers",
    )
    pytorch_dtype: str = _setting(
        "auto",
        {
            "MMEKIT_PYTORCH_DTYPE": parsers.exactly(
                "auto", "float32", "float64", "float16", "bfloat16", "int64", "int32"
            )
        },
        "dtype",
        "PyTorch: type of the input tensor; `auto` takes that of the model's weights.",
        read_by="handlers",
    )
    pytorch_threads: int | None = _setting(
        None,
        {"MMEKIT_PYTORCH_THREADS": parsers.whole(1, 1024)},
        "threads",
        "PyTorch: threads of one call on the CPU.",
        read_by="handlers",
        default_text="`OMP_NUM_THREADS`",
    )
    pytorch_row_wise: bool = _setting(
        False,
        {"MMEKIT_PYTORCH_ROW_WISE": parsers.flag},
        "true, false",
        "PyTorch: the models predict each row by itself, so waiting requests may share a call.",
        read_by="handlers",
    )
    pytorch_allow_pickle: bool = _setting(
        False,
        {"MMEKIT_PYTORCH_ALLOW_PICKLE": parsers.flag},
        "true, false",
        "PyTorch: load files that hold more than tensors, which run code when they are read.",
        read_by="handlers",
    )
    pytorch_warm_export: bool = _setting(
        False,
        {"MMEKIT_PYTORCH_WARM_EXPORT": parsers.flag},
        "true, false",
        "PyTorch: import what `torch.export` archives need before workers are forked.",
        read_by="handlers",
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
    def max_body_setting(self) -> str:
        """The name to give in messages about ``max_body_bytes``."""
        return setting_of("max_body_bytes").names[0]

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> Config:
        """Build a Config from environment variables; ``overrides`` are option texts by field name.

        Raises ConfigError that names the variable or option, its value and what was expected.
        An empty variable counts as not set, as docker's ``-e NAME=`` makes it.
        """
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            setting = setting_of(field.name)
            text = (overrides or {}).get(field.name)
            if text is not None:
                option = "--" + field.name.replace("_", "-")
                values[field.name] = _parse(option, text, setting.env[0][1])
                continue
            for name, parser in setting.env:
                if environ.get(name, "") != "":
                    values[field.name] = _parse(name, environ[name], parser)
                    break
        return cls(**values)


def _parse(name: str, text: str, parser: Parser) -> Any:
    try:
        return parser(text)
    except ValueError as error:
        raise ConfigError(f"{name}={text!r} cannot be used: expected {error}.") from None


def setting_of(field_name: str) -> Setting:
    """Return the declaration of a field of Config."""
    setting = Config.__dataclass_fields__[field_name].metadata["setting"]
    assert isinstance(setting, Setting)
    return setting


def settings_markdown() -> str:
    """Return docs/settings.md: a table of every setting, in the order of declaration."""
    lines = [
        "# Settings",
        "",
        "Made from `container/mmekit/config.py` by `mmekit settings --markdown`; do not edit.",
        "Where a setting has several variables, the first that is set counts.",
        "Each is also an option of `mmekit serve`, except those that handlers read.",
        "",
        "| variable | unit | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for field in dataclasses.fields(Config):
        setting = setting_of(field.name)
        names = ", ".join(f"`{name}`" for name in setting.names)
        lines.append(f"| {names} | {setting.unit} | {_default_text(field)} | {setting.meaning} |")
    return "\n".join(lines) + "\n"


def _default_text(field: dataclasses.Field[Any]) -> str:
    setting = setting_of(field.name)
    if setting.default_text:
        return setting.default_text
    if field.default is None:
        return "not set"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
