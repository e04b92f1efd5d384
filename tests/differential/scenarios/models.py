"""Models without workers: parameters, pages, urls, archives, names."""

from __future__ import annotations

import json
from typing import Any

from tests.differential.differing import answered, bad_request, refused
from tests.differential.exchange import (
    JSON,
    Exchange,
    Scenario,
    describe,
    manage,
    raw,
    register,
    register_query,
    unload,
)
from tests.differential.scenarios.archives import archives
from tests.support.wire import request

_FORM = ("Content-Type", "application/x-www-form-urlencoded")
_TEXT = ("Content-Type", "text/plain")


def _registered(name: str, **parameters: Any) -> tuple[Exchange, ...]:
    """Register without workers, describe, unregister."""
    values = {"model_name": name, "url": "echo", "handler": "service:handle", **parameters}
    values = {key: value for key, value in values.items() if value is not None}
    model = values.get("model_name", "from-manifest")
    return (
        register(f"register-{name}", **values),
        manage(f"describe-{name}", "GET", f"/models/{model}"),
        manage(f"unload-{name}", "DELETE", f"/models/{model}"),
    )


def _unusable(name: str, difference: str, **parameters: Any) -> tuple[Exchange, ...]:
    """Registered by MMS, refused by mmekit."""
    first, *rest = _registered(name, **{"max_batch_delay": 1, **parameters})
    return (refused(first, difference, 400), *(refused(each, difference, 404) for each in rest))


def _found(name: str, difference: str, url: str) -> tuple[Exchange, ...]:
    """Registered by mmekit, not found by MMS."""
    bodies = (
        status(f'Model "{name}" registered'),
        description(name, 0, modelUrl=url, maxBatchDelay=1),
        status(f'Model "{name}" unregistered'),
    )
    exchanges = _registered(name, url=url, max_batch_delay=1)
    return tuple(answered(each, difference, body) for each, body in zip(exchanges, bodies, strict=True))


def description(name: str, workers: int = 1, **changed: Any) -> dict[str, Any]:
    """What mmekit describes."""
    worker = {"id": "WORKER", "startTime": "TIME", "status": "READY", "gpu": False, "memoryUsage": "BYTES"}
    values = {
        "modelName": name,
        "modelUrl": "echo",
        "runtime": "python",
        "minWorkers": workers,
        "maxWorkers": workers,
        "batchSize": 1,
        "maxBatchDelay": 0,
        "loadedAtStartup": False,
        "workers": [worker] * workers,
    }
    return {**values, **changed}


def status(text: str) -> dict[str, str]:
    return {"status": text}


ECHO = {"model_name": "echo", "url": "echo", "handler": "service:handle"}


def _body(name: str, body: str, *headers: tuple[str, str]) -> Exchange:
    return manage(name, "POST", "/models", body, *(headers or (JSON,)))


def _page(*names: str, token: str = "") -> dict[str, Any]:
    page = {"models": [{"modelName": name, "modelUrl": "echo"} for name in names]}
    return {"nextPageToken": token, **page} if token else page


_PAGES = (
    manage("list-empty", "GET", "/models"),
    *(
        register(f"register-{name}", model_name=name, url="echo", handler="service:handle", max_batch_delay=1)
        for name in ("b", "a", "B", "a1", "c")
    ),
    manage("list-all", "GET", "/models"),
    manage("list-limit-2", "GET", "/models?limit=2").differing(
        "page-tokens", body=_page("B", "a", token="after-YQ")
    ),
    manage("list-limit-5", "GET", "/models?limit=5").differing(
        "last-page", body=_page("B", "a", "a1", "b", "c"), layout=...
    ),
    manage("list-limit-0", "GET", "/models?limit=0").differing(
        "limit-0", body=_page("B", "a", "a1", "b", "c"), layout=...
    ),
    manage("list-limit-negative", "GET", "/models?limit=-1"),
    manage("list-limit-101", "GET", "/models?limit=101"),
    manage("list-limit-garbage", "GET", "/models?limit=x"),
    manage("list-limit-twice", "GET", "/models?limit=3&limit=9").differing(
        "page-tokens", body=_page("B", "a", "a1", token="after-YTE")
    ),
    manage("list-offset", "GET", "/models?next_page_token=3"),
    manage("list-offset-and-limit", "GET", "/models?next_page_token=1&limit=2").differing(
        "page-tokens", body=_page("a", "a1", token="after-YTE")
    ),
    manage("list-offset-beyond", "GET", "/models?next_page_token=50"),
    refused(manage("list-token-negative", "GET", "/models?next_page_token=-2"), "page-tokens", 400),
    refused(manage("list-token-garbage", "GET", "/models?next_page_token=zzz"), "page-tokens", 400),
    manage("list-pattern", "GET", "/models?model_name_pattern=a"),
    *(unload(name) for name in ("b", "a", "B", "a1", "c")),
)

_PARAMETERS = (
    *_registered(
        "json-all",
        runtime="python",
        batch_size=4,
        max_batch_delay=50,
        initial_workers=0,
        synchronous=True,
        response_timeout=10,
        preload_model=False,
    ),
    register_query(
        "query-all",
        model_name="query-all",
        url="echo",
        handler="service:handle",
        runtime="python3",
        batch_size=4,
        max_batch_delay=50,
        initial_workers=0,
        synchronous="false",
        response_timeout=1,
        preload_model="false",
    ),
    describe("describe-query-all", "query-all"),
    unload("query-all"),
    register_query("query-defaults", model_name="query-defaults", url="echo", handler="service:handle"),
    describe("describe-query-defaults", "query-defaults").differing(
        "max-batch-delay", body=description("query-defaults", 0)
    ),
    unload("query-defaults"),
    *_registered("json-texts", batch_size="3", max_batch_delay="20", initial_workers="0", synchronous="true"),
    *_registered("json-nulls", batch_size=None, max_batch_delay=1, initial_workers=0, unknown=None),
    *_registered("json-unknown", max_batch_delay=1, whatever=[1, {"a": 2}]),
    *_unusable("batch-size-0", "bad-parameters", batch_size=0),
    *_unusable("batch-size-negative", "bad-parameters", batch_size=-3),
    *_unusable("delay-negative", "bad-parameters", max_batch_delay=-3),
    *_unusable("initial-workers-negative", "bad-parameters", initial_workers=-1),
    *_registered("runtime-python3", runtime="python3", max_batch_delay=1),
    *_registered("runtime-other", runtime="perl", max_batch_delay=1),
    refused(register_query("query-no-number", **ECHO, batch_size="many"), "bad-parameters", 400),
    refused(unload("echo"), "bad-parameters", 404),
    refused(register_query("query-no-boolean", **ECHO, synchronous="maybe"), "bad-parameters", 400),
    refused(manage("unload-no-boolean", "DELETE", "/models/echo"), "bad-parameters", 404),
    bad_request(_body("json-no-number", json.dumps({**ECHO, "batch_size": "many"})), "bad-json"),
    bad_request(_body("json-fraction", json.dumps({**ECHO, "batch_size": 1.5})), "bad-json"),
    bad_request(_body("json-name-no-text", json.dumps({**ECHO, "model_name": {"a": 1}})), "bad-json"),
    bad_request(_body("json-empty", " "), "bad-json"),
    bad_request(
        raw(
            "json-no-body",
            request("POST", "/models", [JSON, ("Content-Length", "0")]),
            "POST",
            on="management",
        ),
        "bad-json",
    ),
    bad_request(_body("json-null", "null"), "bad-json"),
    bad_request(_body("json-array", "[]"), "bad-json"),
    bad_request(_body("json-text", '"echo"'), "bad-json"),
    bad_request(_body("json-broken", '{"url": '), "bad-json"),
    bad_request(_body("json-single-quotes", "{'url': 'nowhere'}"), "bad-json"),
    _body("json-with-charset", '{"url": "nowhere"}', ("Content-Type", "application/json; charset=utf-8")),
    _body("json-type-in-capitals", '{"url": "nowhere"}', ("Content-Type", "Application/JSON")),
    _body("json-like-type", '{"url": "nowhere"}', ("Content-Type", "application/vnd.api+json")),
    _body("json-without-type", '{"url": "nowhere"}', ("X-A", "1")),
    _body("json-as-text", '{"url": "nowhere"}', _TEXT),
    _body("form", "url=nowhere", _FORM),
    manage("json-beats-query", "POST", "/models?url=echo", '{"url": "nowhere"}', JSON),
    manage("query-beside-text", "POST", "/models?url=nowhere", "text", _TEXT),
    manage("no-parameters", "POST", "/models"),
    register("empty-url", model_name="a", url="").differing(
        "empty-parameters", type="BadRequestException", message=...
    ),
    register("empty-name", model_name="", url="echo", handler="service:handle"),
    register("no-name", url="echo", handler="service:handle"),
    register("no-handler", model_name="a", url="echo"),
    refused(register("empty-handler", model_name="a", url="echo", handler=""), "empty-parameters", 400),
    refused(manage("unload-empty-handler", "DELETE", "/models/a"), "empty-parameters", 404),
)

_URLS = (
    register("url-missing", model_name="a", url="nowhere"),
    register("url-parent", model_name="a", url="../echo"),
    register("url-parent-inside", model_name="a", url="echo/../echo", handler="service:handle"),
    *_found("url-two-dots", "dots-in-names", url="two..dots"),
    register("url-s3", model_name="a", url="s3://bucket/model.tar.gz"),
    register("url-file", model_name="a", url="file:///etc"),
    register("url-absolute-missing", model_name="a", url="/etc"),
    *_registered("url-absolute", url="/echo", max_batch_delay=1),
    *_registered("url-slash", url="echo/", max_batch_delay=1),
    *_registered("url-dot", url="./echo", max_batch_delay=1),
    *_registered("url-nested", url="nested/inner", max_batch_delay=1),
    register("url-http", model_name="a", url="http://127.0.0.1:1/model.mar"),
    register("url-https", model_name="a", url="HTTPS://127.0.0.1:1/model.mar"),
    register("url-store", model_name="a", url="/"),
)

_KINDS = (
    *_registered("mar", model_name=None, url="packed.mar", handler=None, max_batch_delay=1),
    *_registered("mar-renamed", url="packed.mar", handler=None, max_batch_delay=1),
    *_registered("packed-folder", model_name=None, url="packed-folder", handler=None, max_batch_delay=1),
    *_registered("with-manifest", model_name=None, url="with-manifest", handler=None, max_batch_delay=1),
    *_registered("manifest-and-parameters", url="with-manifest", runtime="python", max_batch_delay=1),
    *_registered("plain-zip", url="plain.zip", max_batch_delay=1),
    register("plain-zip-without-name", url="plain.zip", handler="service:handle"),
    *_unusable("zip-escaping", "unsafe-archives", url="escaping.zip"),
    *_unusable("garbage", "broken-archives", url="garbage.mar"),
    *_unusable("empty-file", "broken-archives", url="empty.mar"),
    *_unusable("source-file", "broken-archives", url="echo/service.py"),
    *_unusable("empty-folder", "broken-archives", url="empty"),
    register("broken-manifest", url="broken-manifest").differing("manifest-words", message=...),
    register("array-manifest", url="array-manifest").differing("manifest-words", message=...),
    register("no-model", url="no-model"),
    register("manifest-without-name", url="no-name"),
    register("manifest-without-handler", url="no-handler"),
    register("manifest-without-engine-name", url="no-engine-name"),
    register("manifest-without-runtime", url="no-runtime"),
    register("manifest-with-another-runtime", url="other-runtime"),
)

_NAMES = (
    *_registered("with.dots-and_more", max_batch_delay=1),
    register("name-with-slash", model_name="a/b", url="echo", handler="service:handle", max_batch_delay=1),
    answered(
        manage("describe-name-with-slash", "GET", "/models/a%2Fb"),
        "escaped-paths",
        description("a/b", 0, maxBatchDelay=1),
    ),
    answered(
        manage("unload-name-with-slash", "DELETE", "/models/a%2Fb"),
        "escaped-paths",
        status('Model "a/b" unregistered'),
    ),
    register("name-with-space", model_name="a b", url="echo", handler="service:handle", max_batch_delay=1),
    manage("describe-name-with-space", "GET", "/models/a%20b"),
    manage("unload-name-with-space", "DELETE", "/models/a%20b"),
    register("name-not-ascii", model_name="ä", url="echo", handler="service:handle", max_batch_delay=1),
    manage("describe-name-not-ascii", "GET", "/models/%C3%A4"),
    manage("unload-name-not-ascii", "DELETE", "/models/%C3%A4"),
)

_WITHOUT_WORKERS = Scenario(
    "models-without-workers",
    (*_PAGES, *_PARAMETERS, *_URLS, *_KINDS, *_NAMES),
    prepare=archives,
)

SCENARIOS: tuple[Scenario, ...] = (_WITHOUT_WORKERS,)
