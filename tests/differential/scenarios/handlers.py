"""How handlers are found, loaded and run: MMS's own and sagemaker-inference's (contract 3.1–3.3, 4)."""

from __future__ import annotations

from pathlib import Path

from tests.differential.differing import answered, refused
from tests.differential.exchange import STORE, Exchange, Scenario, describe, invoke, load, register

_TOOLKIT = "sagemaker_inference.default_handler_service"


def _broken_file(store: Path) -> None:
    (store / "syntax").mkdir()
    (store / "syntax" / "service.py").write_text("def handle(data, context)\n")


def _toolkit(folder: str) -> Exchange:
    return load(folder, _TOOLKIT)


def _ask(model: str, name: str, body: str, content_type: str = "", accept: str = "") -> Exchange:
    headers = [("Content-Type", content_type)] if content_type else []
    headers += [("Accept", accept)] if accept else []
    return invoke(model, body, *headers, name=name)


def _runs(name: str, loads: Exchange, body: object, model: str = "") -> tuple[Exchange, Exchange]:
    """MMS cannot load it, mmekit can."""
    model = model or loads.name.removeprefix("load-")
    return (
        answered(loads, name, {"status": "Workers scaled"}),
        answered(invoke(model, "x"), name, body),
    )


def _by_default(folder: str, name: str) -> Exchange:
    """Register with the handler of default_service_handler."""
    return register(f"load-{name}", model_name=name, url=folder, initial_workers=1)


_FORMS = (
    _by_default("echo", "by-default"),
    invoke("by-default", "x"),
    load("named", "handler:predict"),
    invoke("named", "x"),
    load("named", "handler.py:predict", model_name="named-file"),
    invoke("named-file", "x"),
    load("nested", "inner/service.py:handle"),
    invoke("nested", "x"),
    *_runs("handler-path-alone", load("package", "own/inner.py"), "from a package"),
    load("package", "own.inner:handle", model_name="dotted"),
    invoke("dotted", "x"),
    load("echo", "service", model_name="no-function"),
    invoke("no-function", "x"),
    load("echo", "service:missing", model_name="no-such-function"),
    load("echo", "missing:handle", model_name="no-such-module"),
    load("echo", "inner/missing.py:handle", model_name="no-such-file"),
    load("echo", ":handle", model_name="no-module"),
    load("class_style"),
    invoke("class_style", "x"),
    *_runs(
        "handler-names-class",
        load("class_style", "service:Service", model_name="class-named"),
        {"ready": True},
        "class-named",
    ),
    load("class_style", "service:other", model_name="class-other"),
    invoke("class-other", "x"),
    load("two_classes"),
    *_runs("helper-classes", load("class_helper"), "one of two"),
    *_runs("class-without-initialize", load("class_bare"), "bare"),
    load("class_no_handle"),
    load("class_init"),
)

_FAILING = (
    refused(load("class_init_raises"), "failing-initialize"),
    refused(invoke("class_init_raises", "x"), "failing-initialize", 404),
    refused(load("class_init_memory"), "failing-initialize", 507),
    refused(invoke("class_init_memory", "x"), "failing-initialize", 404),
    load("init_raises"),
    describe("describe-init_raises", "init_raises"),
    load("init_memory"),
    load("init_exits"),
    load("exits"),
    load("missing"),
    load("mxnet"),
    load("syntax"),
    load("variable"),
)

_CONTEXT_HEADERS = {"X-One": "1", "X-Two": "2", "content-type": "application/json"}
#: MMS has None for what is False in "loaded", and no header by another case of its name.
_CONTEXT = {
    "loaded": {"request_processor": True, "request_ids": False, "metrics": False},
    "model_name": "context",
    "manifest": None,
    "system_properties": {
        "model_dir": f"{STORE}/context",
        "gpu_id": None,
        "batch_size": 1,
        "server_name": "MMS",
        "server_version": "1.1.11",
    },
    "request_ids": {"0": 36},
    "same_id": True,
    "request_processor": "list",
    "header": "value",
    "header_other_case": "value",
    "header_missing": None,
    "property": "value",
    "properties": ["Content-Length", "Host", "X-Asked", "body"],
    "status": [202, "Taken"],
    "status_code": 202,
    "status_phrase": "Taken",
    "response_headers": _CONTEXT_HEADERS,
    "processor_headers": _CONTEXT_HEADERS,
    "response_header": "1",
    "content_type": "application/json",
    "equal_to_itself": True,
}

_RUNNING = (
    load("context"),
    invoke("context", "x", ("X-Asked", "value"))
    .differing("context-at-load", body=_CONTEXT)
    .differing("header-names-any-case", body=_CONTEXT),
    load("metrics"),
    invoke("metrics", "x"),
    load("imports"),
    invoke("imports", "x"),
    load("where"),
    invoke("where", "x"),
    load("state"),
    invoke("state", "x"),
    invoke("state", "x", name="state-again"),
)


def _unsupported(exchange: Exchange, kind: str) -> Exchange:
    """Name the difference in the toolkit's reason phrase, which it makes of a text of several lines."""
    return exchange.differing(
        "reason-lines",
        reason=f"Content type {kind} is not supported by this framework. Please implement input_fn to to "
        "deserialize the request data or an output_fn to serialize the response. For more information, see "
        "the SageMaker Python SDK README.",
    )


def _does_not_load(folder: str) -> tuple[Exchange, Exchange]:
    """MMS loads it, and the toolkit tries again with each request."""
    return (
        refused(_toolkit(folder), "failing-initialize"),
        _ask(folder, f"{folder}-failed", "[1]", "application/json").differing(
            "failing-initialize",
            status=404,
            reason="Not Found",
            header__content_type="application/json",
            body=None,
        ),
    )


_TOOLKITS = (
    _toolkit("toolkit"),
    _ask("toolkit", "toolkit-json", "[1, 2]", "application/json"),
    _ask("toolkit", "toolkit-json-accept", "[1, 2]", "application/json", "application/json"),
    _ask("toolkit", "toolkit-any", "[1, 2]", "application/json", "*/*"),
    _ask("toolkit", "toolkit-csv", "1,2\n3,4", "text/csv", "text/csv"),
    _ask("toolkit", "toolkit-accept-list", "[1]", "application/json", "text/html, text/csv"),
    _unsupported(
        _ask("toolkit", "toolkit-charset", "[1]", "application/json; charset=utf-8"),
        "application/json; charset=utf-8",
    ),
    _unsupported(
        _ask("toolkit", "toolkit-quality", "[1]", "application/json", "application/json;q=0.9"),
        "application/json;q=0.9",
    ),
    _unsupported(_ask("toolkit", "toolkit-accept-odd", "[1]", "application/json", "text/html"), "text/html"),
    _unsupported(_ask("toolkit", "toolkit-no-type", "[1]"), "None"),
    _unsupported(_ask("toolkit", "toolkit-type-odd", "[1]", "image/png"), "image/png"),
    _ask("toolkit", "toolkit-broken", "[1", "application/json"),
    _ask("toolkit", "toolkit-raises", "[]", "application/json"),
    _ask("toolkit", "toolkit-own-error", "[400]", "application/json"),
    _by_default("toolkit", "toolkit-by-default"),
    _ask("toolkit-by-default", "toolkit-asked-by-default", "[1, 2]", "application/json"),
    _toolkit("toolkit_transform"),
    _ask("toolkit_transform", "transform", "x", "application/json", "text/csv"),
    _ask("toolkit_transform", "transform-no-type", "x"),
    _toolkit("toolkit_full"),
    _ask("toolkit_full", "full", "x", "text/csv"),
    _toolkit("toolkit_code"),
    answered(
        _ask("toolkit_code", "code-folder", "[1]", "application/json"),
        "toolkit-code-folder",
        [3],
        header__content_type="application/json",
        layout=[""],
    ),
    *_does_not_load("toolkit_fails"),
    *_does_not_load("toolkit_none"),
    *_does_not_load("toolkit_both"),
)

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "handlers",
        (*_FORMS, *_FAILING, *_RUNNING),
        {"default_service_handler": "service:handle"},
        prepare=_broken_file,
    ),
    Scenario("toolkit", _TOOLKITS, {"decode_input_request": "false", "default_service_handler": _TOOLKIT}),
)
