"""What handlers may answer, and how their failures are answered (contract 2.12)."""

from __future__ import annotations

from typing import Any

from tests.differential.differing import answered, refused
from tests.differential.exchange import Exchange, Scenario, invoke, load


def _case(name: str) -> Exchange:
    """Ask for a case of models/outputs/service.py."""
    return invoke("outputs", name, name=name)


def _says(name: str, difference: str, message: str) -> Exchange:
    """Both answer 500, MMS because its worker has died."""
    return _case(name).differing(difference, message=message)


_RETURNED = (
    "bytes",
    "bytearray",
    "empty-bytes",
    "str",
    "empty-str",
    "dict",
    "empty-dict",
    "list",
    "tuple",
    "int",
    "float",
    "true",
    "none",
    "nan",
    "object",
    "set",
    "not-a-list",
    "a-dict",
    "a-tuple",
    "nothing",
    "too-many",
    "too-few",
    "tuple-keys",
)

_RETURNED_HERE = (
    answered(_case("generator"), "streamed-answers", "ab", header__transfer_encoding="chunked"),
    answered(_case("memoryview"), "memory-views", "abc"),
)

#: MMS never does.
_ANSWERED: dict[str, Any] = {
    "answered": "yes",
    "closed": True,
    "header__x_request_id": "UUID",
    "header__pragma": "no-cache",
    "header__cache_control": "no-cache; no-store, must-revalidate, private",
    "header__expires": "Thu, 01 Jan 1970 00:00:00 UTC",
    "header__connection": "close",
}

_STATUSES = (
    _case("status-201"),
    _case("status-204"),
    _case("status-302"),
    _case("status-404"),
    _case("status-404-no-phrase"),
    _case("status-500"),
    _case("status-all"),
    _case("status-none"),
    refused(_case("status-99"), "status-range"),
    _case("status-600").differing(
        "status-range",
        status=500,
        reason="Internal Server Error",
        body=None,
        header__content_type="application/json",
    ),
    _says(
        "status-text", "bad-answers", "The handler set the status '202'; expected a number from 200 to 599."
    ),
    _case("status-phrase-lines")
    .at_most(3)
    .differing("reason-lines", **_ANSWERED, status=404, reason="Not Here", body="handler's"),
    _case("status-phrase-spaces").differing("reason-lines", reason="Not Here"),
)

_HEADERS = (
    _case("content-type"),
    _case("content-type-empty"),
    _case("header"),
    _case("header-twice"),
    _case("header-two-cases").differing("header-in-two-cases", header__x_twice="second"),
    _case("header-request-id"),
    _case("header-connection"),
    _case("header-content-length"),
    _case("header-transfer-encoding").differing(
        "header-transfer-encoding", header__transfer_encoding=None, body="headers"
    ),
    _case("header-cache"),
    _case("header-latin-1"),
    refused(_case("header-crlf"), "bad-headers", header__x_own=None, header__x_injected=None),
    refused(_case("header-name"), "bad-headers").differing("bad-headers", **{"header__x own": None}),
    _says("header-number", "bad-answers", "The handler set the header X-Own to int 5; expected a str."),
    _says(
        "content-type-number",
        "bad-answers",
        "The handler set the header content-type to int 5; expected a str.",
    ),
)

_FAILURES = (
    _case("prediction-exception").differing("reason-words", reason="Unprocessable Content"),
    _case("prediction-exception-default"),
    _case("prediction-exception-200"),
    _case("prediction-exception-99").differing(
        "status-range",
        status=500,
        reason="Internal Server Error",
        closed=True,
        header__connection="close",
        code=500,
    ),
    _case("prediction-exception-600").differing(
        "status-range", status=500, reason="Internal Server Error", code=500
    ),
    _case("prediction-exception-derived").differing("reason-words", reason="I'm a Teapot"),
    _case("value-error"),
    _case("memory-error"),
    _says("base-exception", "worker-survives", "Prediction failed: KeyboardInterrupt: stop (service.py:56)"),
    invoke("outputs", "str", name="alive-after-a-base-exception"),
    _case("circular").differing(
        "bad-answers",
        status=503,
        reason="Service Unavailable",
        code=503,
        message="Unsupported model output data type. Circular reference detected",
    ),
    _case("surrogate").differing(
        "bad-answers", status=503, reason="Service Unavailable", code=503, message=...
    ),
    _says(
        "exit",
        "worker-survives",
        "Prediction failed: the code called exit(3) while predicting (service.py:141)",
    ),
    invoke("outputs", "str", name="alive-after-exit"),
    _case("os-exit"),
    invoke("outputs", "str", name="alive-after-os-exit"),
    _says(
        "big",
        "bad-answers",
        "The answer has 300000 bytes; max_response_size allows 200000 (config.properties, or "
        "SAGEMAKER_MAX_RESPONSE_SIZE).",
    ),
    invoke("outputs", "str", name="alive-after-big"),
)

_BATCHES = (
    load("batch", batch_size=2, max_batch_delay=50),
    invoke("batch", "1", name="one-of-two"),
    load("outputs", model_name="batched", batch_size=2, max_batch_delay=50),
    invoke("batched", "dict", name="batched-dict"),
    invoke("batched", "too-many", name="batched-too-many"),
    invoke("batched", "value-error", name="batched-value-error"),
)

_SLOW = (
    load("slow", response_timeout=5),
    invoke("slow", "0", name="in-time"),
    invoke("slow", "15", name="late").differing(
        "late-answers",
        status=504,
        reason="Gateway Timeout",
        code=504,
        type="PredictionTimeoutException",
        message="Model slow did not answer within 5 s and its worker was replaced "
        "(the response_timeout that it was registered with).",
    ),
    invoke("slow", "0", name="alive-after-late"),
)

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "outputs",
        (
            load("outputs"),
            *(_case(name) for name in _RETURNED),
            *_RETURNED_HERE,
            *_STATUSES,
            *_HEADERS,
            *_FAILURES,
            *_BATCHES,
            *_SLOW,
        ),
        {"max_response_size": "200000"},
    ),
)
