"""Routes and HTTP: which paths and methods lead where on which connector, and what HTTP allows beside."""

from __future__ import annotations

from pathlib import Path

from tests.differential.exchange import (
    JSON,
    Exchange,
    Scenario,
    ask,
    get,
    invoke,
    load,
    manage,
)
from tests.differential.scenarios import http
from tests.support.keys import identity

_METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE")

#: Of the inference connector; with a model `echo`.
_INFERENCE = (
    "/",
    "//",
    "/api-description",
    "/api-description/",
    "/api-description/x",
    "/ping",
    "/ping/",
    "/ping/x/y",
    "/Ping",
    "/predictions",
    "/predictions/echo",
    "/predictions/echo/",
    "/predictions/echo/v2",
    "/predictions/missing",
    "/predictions/echo?a=1",
    "/invocations",
    "/invocations?model_name=echo",
    "/invocations?model_name=missing",
    "/invocations/x",
    "/models/echo/invoke",
    "/models/echo/invoke/",
    "/models/missing/invoke",
    "/models/echo/other",
    "/models/echo/invoke/x",
    "/echo/predict",
    "/missing/predict",
    "/echo/predict/x",
    "/echo",
    "/missing",
    "/a/b/c/d",
)

#: Those of them where OPTIONS is answered by an OpenAPI document.
_WITH_DOCUMENTS = (
    "",
    "/predictions/echo",
    "/predictions/echo/v2",
    "/predictions/echo?a=1",
    "/invocations?model_name=echo",
    "/models/echo/invoke",
    "/echo/predict",
)

#: Of the management connector, read only.
_MANAGEMENT = (
    "/",
    "/api-description",
    "/api-description/x",
    "/models",
    "/models/",
    "/models/echo",
    "/models/echo/",
    "/models/missing",
    "/models/echo/x",
    "/Models",
    "/missing",
)


def _is_document(method: str, path: str) -> bool:
    path = path.rstrip("/")
    return path == "/api-description" or (method == "OPTIONS" and path in _WITH_DOCUMENTS)


def _routes() -> list[Exchange]:
    found = []
    for method in _METHODS:
        for path in _INFERENCE:
            found.append(_route(method, path, "inference"))
        for path in _MANAGEMENT:
            if path.strip("/") == "models" and method == "POST":
                continue
            if path.startswith("/models/") and method in ("PUT", "DELETE"):
                continue
            found.append(_route(method, path, "management"))
    # of the other connector
    for path in ("/models", "/models/echo"):
        for method in ("GET", "POST", "PUT", "DELETE"):
            found.append(_route(method, path, "inference"))
    for path in ("/ping", "/invocations", "/predictions/echo", "/models/echo/invoke", "/echo/predict"):
        for method in ("GET", "POST"):
            found.append(_route(method, path, "management"))
    return found


def _route(method: str, path: str, on: str) -> Exchange:
    exchange = ask(f"{on}-{method}-{path}", method, path, on=on)
    if path == "/invocations" and on == "inference":
        body = {} if method == "HEAD" else {"body": ...}
        content_type = {} if method == "OPTIONS" else {"header__content_type": None}
        return exchange.differing("only-model", **http.ANSWERED, **body, **content_type)
    if (method, path) == ("OPTIONS", "//"):
        return exchange.differing("options-root-slashes", **http.ANSWERED, body=...)
    if method != "HEAD" and _is_document(method, path):
        return _document(exchange)
    return exchange


def _document(exchange: Exchange) -> Exchange:
    return exchange.differing("openapi-documents", body=..., layout=...)


_TWO_PORTS = Scenario(
    "two-ports",
    (load("echo", max_batch_delay=100), *_routes(), *http.exchanges()),
    {"max_request_size": str(http.BODY_LIMIT)},
)


#: As sagemaker-inference starts MMS for a multi-model endpoint (its mme-mms.properties and its settings).
_SAGEMAKER = Scenario(
    "sagemaker",
    (
        get("ping", "/ping"),
        get("list-empty", "/models"),
        get("execution-parameters", "/execution-parameters").differing(
            "execution-parameters",
            **http.ANSWERED,
            body={"MaxConcurrentTransforms": 1, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6},
        ),
        _document(ask("documents", "OPTIONS", "/")),
        ask("load", "POST", "/models", '{"model_name": "one", "url": "@STORE@/toolkit"}', JSON),
        ask("load-again", "POST", "/models", '{"model_name": "one", "url": "@STORE@/toolkit"}', JSON),
        ask("load-without-folder", "POST", "/models", '{"model_name": "two", "url": "/no/such/model"}', JSON),
        get("list", "/models"),
        get("describe", "/models/one").differing(
            "max-batch-delay",
            body={
                "modelName": "one",
                "modelUrl": "@STORE@/toolkit",
                "runtime": "python",
                "minWorkers": 1,
                "maxWorkers": 1,
                "batchSize": 1,
                "maxBatchDelay": 0,
                "loadedAtStartup": False,
                "workers": [
                    {
                        "id": "WORKER",
                        "startTime": "TIME",
                        "status": "READY",
                        "gpu": False,
                        "memoryUsage": "BYTES",
                    }
                ],
            },
        ),
        get("ping-with-a-model", "/ping"),
        ask("invoke", "POST", "/models/one/invoke", "[1, 2]", JSON),
        ask(
            "invoke-with-target-model",
            "POST",
            "/models/one/invoke",
            "[1]",
            JSON,
            ("X-Amzn-SageMaker-Target-Model", "other"),
        ),
        ask("invoke-missing", "POST", "/models/two/invoke", "[1]", JSON),
        ask("invoke-by-get", "GET", "/models/one/invoke").differing("reason-lines", reason=...),
        ask("invocations", "POST", "/invocations", "[1]", JSON).differing(
            "only-model", **http.ANSWERED, body=[2]
        ),
        ask("predictions", "POST", "/predictions/one", "[1]", JSON),
        ask(
            "load-own-handler",
            "POST",
            "/models",
            '{"model_name":"echo","url":"@STORE@/echo","handler":"service:handle"}',
            JSON,
        ),
        ask("body-is-not-decoded", "POST", "/models/echo/invoke", "[1]", JSON),
        ask("models-options", "OPTIONS", "/models"),
        ask("models-model-options", "OPTIONS", "/models/one"),
        _document(ask("models-invoke-options", "OPTIONS", "/models/one/invoke")),
        ask("models-other", "GET", "/models/one/other"),
        ask("models-predict", "POST", "/models/predict", "[1]", JSON).differing(
            "model-named-predict",
            status=405,
            reason="Method Not Allowed",
            code=405,
            type="MethodNotAllowedException",
            message="Requested method is not allowed, please refer to API document.",
        ),
        ask("unload", "DELETE", "/models/one"),
        ask("unload-again", "DELETE", "/models/one"),
        ask("describe-missing", "GET", "/models/one"),
        get("list-after", "/models"),
    ),
    {
        "inference_address": "http://0.0.0.0:@PORT@",
        "management_address": "http://0.0.0.0:@PORT@",
        "enable_envvars_config": "true",
        "model_store": "/",
        "default_service_handler": "sagemaker_inference.default_handler_service:handle",
        "default_workers_per_model": "1",
        "async_logging": "true",
        "decode_input_request": "false",
    },
)


def _keys(store: Path) -> None:
    identity("rsa").write(store)


_ORIGIN = ("Origin", "https://page.example")
_PREFLIGHT = (_ORIGIN, ("Access-Control-Request-Method", "POST"))

_TLS_AND_CORS = Scenario(
    "tls-and-cors",
    (
        get("ping", "/ping"),
        get("ping-with-origin", "/ping", _ORIGIN),
        get("missing", "/missing"),
        get("list", "/models"),
        ask("preflight-root", "OPTIONS", "/", b"", *_PREFLIGHT).differing(
            "cors-preflight",
            status=204,
            reason="No Content",
            header__content_type=None,
            layout=...,
            body="",
        ),
        ask("preflight-models", "OPTIONS", "/models", b"", *_PREFLIGHT).differing(
            "cors-preflight",
            status=204,
            reason="No Content",
            closed=False,
            header__content_type=None,
            header__connection="keep-alive",
            body="",
        ),
        ask("options-without-preflight", "OPTIONS", "/models", b"", _ORIGIN),
        invoke("missing", b"1", _ORIGIN),
        http.malformed("malformed", b"garbage\r\n\r\n"),
        invoke("missing", b"x" * 2000, name="body-over-the-limit")
        .differing("body-limit", **http.TOO_LARGE, **http.AND_CLOSED)
        .differing(
            "cors-refused",
            header__access_control_allow_origin="https://page.example",
            header__access_control_allow_methods="GET, POST, PUT, OPTIONS",
            header__access_control_allow_headers="X-Custom-Header",
        ),
    ),
    {
        "inference_address": "https://127.0.0.1:@PORT@",
        "management_address": "https://127.0.0.1:@PORT@",
        "private_key_file": "@STORE@/key.pem",
        "certificate_file": "@STORE@/certificate.pem",
        "cors_allowed_origin": "https://page.example",
        "cors_allowed_methods": "GET, POST, PUT, OPTIONS",
        "cors_allowed_headers": "X-Custom-Header",
        "max_request_size": "1000",
    },
    prepare=_keys,
)

_UNIX = Scenario(
    "unix-sockets",
    (
        get("ping", "/ping"),
        get("models-on-inference", "/models"),
        manage("list", "GET", "/models"),
        manage("ping-on-management", "GET", "/ping"),
    ),
    {
        "inference_address": "unix:@HOME@/inference.sock",
        "management_address": "unix:@HOME@/management.sock",
    },
)

SCENARIOS: tuple[Scenario, ...] = (_TWO_PORTS, _SAGEMAKER, _TLS_AND_CORS, _UNIX)
