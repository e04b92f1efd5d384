"""Models with workers: scaling, calls, failing loads, models that are there from the start."""

from __future__ import annotations

from typing import Any

from tests.differential.differing import answered, refused
from tests.differential.exchange import (
    JSON,
    Scenario,
    ask,
    describe,
    get,
    invoke,
    load,
    manage,
    register,
    scale,
    unload,
)
from tests.differential.scenarios.archives import archives, startup
from tests.differential.scenarios.models import ECHO, description, status

#: Of an invoke, where MMS never answers.
_AN_ERROR: dict[str, Any] = {
    "answered": "yes",
    "status": 500,
    "reason": "Internal Server Error",
    "closed": True,
    "header__content_type": "application/json",
    "header__x_request_id": "UUID",
    "header__pragma": "no-cache",
    "header__cache_control": "no-cache; no-store, must-revalidate, private",
    "header__expires": "Thu, 01 Jan 1970 00:00:00 UTC",
    "header__connection": "close",
    "layout": ...,
    "code": 500,
    "type": "InternalServerException",
    "message": "Failed to start workers: ValueError: no weights (service.py:6)",
}

_WORKERS = Scenario(
    "workers",
    (
        get("ping-without-models", "/ping"),
        load("echo", max_batch_delay=1),
        register("register-again", **ECHO),
        register("register-again-from-elsewhere", model_name="echo", url="nowhere").differing(
            "conflicts-first",
            status=409,
            reason="Conflict",
            code=409,
            type="ConflictStatusException",
            message="Model echo is already registered.",
        ),
        get("ping-with-a-worker", "/ping"),
        scale("scale-up", "echo", min_worker=2, synchronous="true"),
        describe("describe-two", "echo"),
        scale("scale-to-the-same", "echo", min_worker=2, synchronous="true"),
        scale("scale-down", "echo", min_worker=1, synchronous="true"),
        describe("describe-one", "echo"),
        scale("scale-range", "echo", min_worker=1, max_worker=3, synchronous="true"),
        describe("describe-range", "echo"),
        scale("scale-max-below-min", "echo", min_worker=2, max_worker=1),
        scale("scale-max-alone", "echo", max_worker=0),
        refused(scale("scale-no-number", "echo", min_worker="x", synchronous="true"), "bad-parameters", 400),
        scale("scale-ignored-parameters", "echo", min_worker=1, number_gpu=3, timeout=-1, synchronous="true"),
        scale("scale-async", "echo", min_worker=1),
        manage("scale-defaults", "PUT", "/models/echo"),
        manage("scale-by-body", "PUT", "/models/echo?synchronous=true", '{"min_worker": 3}', JSON),
        describe("describe-after-body", "echo"),
        scale("scale-missing", "missing", min_worker=1),
        scale("scale-to-none", "echo", min_worker=0, max_worker=1, synchronous="true"),
        describe("describe-none", "echo"),
        get("ping-without-workers", "/ping"),
        invoke("echo", b"1", name="invoke-without-workers").differing("no-workers-words", message=...),
        refused(scale("scale-negative", "echo", min_worker=-1, max_worker=1), "bad-parameters", 400),
        unload("echo"),
        invoke("echo", b"1", name="invoke-unloaded"),
        manage("unload-again", "DELETE", "/models/echo"),
        register(
            "no-workers-asked", model_name="idle", url="echo", handler="service:handle", max_batch_delay=1
        ),
        invoke("idle", b"1", name="invoke-without-a-worker").differing("no-workers-words", message=...),
        unload("idle"),
        register("async", **ECHO, initial_workers=1, synchronous=False, max_batch_delay=1),
        register("async-again", **ECHO),
        invoke("echo", b"1", name="invoke-async").waiting(200),
        describe("describe-async", "echo"),
        register("async-missing", model_name="m", url="nowhere", initial_workers=1, synchronous=False),
        register(
            "async-without-workers", model_name="w", url="echo", handler="service:handle", synchronous=False
        ),
        register(
            "async-failing",
            model_name="f",
            url="init_raises",
            handler="service:handle",
            initial_workers=1,
            synchronous=False,
        ),
        invoke("f", b"1", name="invoke-async-failing")
        .at_most(3)
        .differing("failed-background-loads", **_AN_ERROR),
        register("failing", model_name="x", url="init_raises", handler="service:handle", initial_workers=1),
        describe("describe-failed", "x"),
        register(
            "failing-again", model_name="x", url="init_raises", handler="service:handle", initial_workers=1
        ),
        register(
            "failing-for-memory",
            model_name="y",
            url="init_memory",
            handler="service:handle",
            initial_workers=1,
        ),
        refused(describe("describe-failed-for-memory", "y"), "failed-loads-stay", 404),
        register(
            "failing-for-memory-again",
            model_name="y",
            url="init_memory",
            handler="service:handle",
            initial_workers=1,
        ).differing(
            "failed-loads-stay",
            status=507,
            reason="Insufficient Storage",
            code=507,
            type="InternalServerException",
            message=...,
        ),
        load("packed.mar", model_name="mar"),
        invoke("mar", b"1"),
        answered(load("packed-tgz.tar.gz", model_name="tgz"), "tar-archives", status("Workers scaled")),
        answered(invoke("tgz", b"1"), "tar-archives", ...),
        register(
            "preloaded",
            model_name="p",
            url="echo",
            handler="service:handle",
            initial_workers=2,
            preload_model=True,
        ),
        invoke("p", b"1"),
    ),
    prepare=archives,
)


def _listed(*names: str) -> dict[str, Any]:
    urls = {"first": "first.mar", "from-manifest": "folder", "second": "second.model", "third": "third.zip"}
    return {"models": [{"modelName": name, "modelUrl": urls[name]} for name in names]}


_LOAD_ALL = Scenario(
    "load-all",
    (
        get("ping", "/ping").waiting(200),
        manage("list", "GET", "/models").differing(
            "load-all", body=_listed("first", "from-manifest", "second", "third"), layout=...
        ),
        describe("describe-archive", "first").differing(
            "max-batch-delay", body=description("first", modelUrl="first.mar", loadedAtStartup=True)
        ),
        describe("describe-folder", "from-manifest").differing(
            "max-batch-delay",
            body=description(
                "from-manifest",
                modelUrl="folder",
                modelVersion="1.5",
                engine="Own",
                runtime="python3",
                loadedAtStartup=True,
            ),
        ),
        invoke("from-manifest", b"1"),
        ask("invocations", "POST", "/invocations", b"1"),
        unload("first"),
        manage("list-after", "GET", "/models").differing(
            "load-all", body=_listed("from-manifest", "second", "third"), layout=...
        ),
    ),
    {"model_store": "@STORE@/startup", "load_models": "ALL", "default_workers_per_model": "1"},
    prepare=startup,
)

_LOAD_SOME = Scenario(
    "load-some",
    (
        ask("invocations", "POST", "/invocations", b"1"),
        manage("list", "GET", "/models"),
        describe("describe", "one").differing(
            "max-batch-delay", body=description("one", loadedAtStartup=True)
        ),
        load("echo", model_name="two", max_batch_delay=1),
        ask("invocations-with-another-model", "POST", "/invocations?a=1", b"1"),
        ask("invocations-by-name", "POST", "/invocations?model_name=two&a=1", b"1"),
        unload("one"),
        answered(ask("invocations-unloaded", "POST", "/invocations", b"1"), "only-model", ...),
    ),
    {
        "load_models": "one=echo,gone=nowhere",
        "default_workers_per_model": "1",
        "default_service_handler": "service:handle",
        "preload_model": "true",
    },
)

SCENARIOS: tuple[Scenario, ...] = (_WORKERS, _LOAD_ALL, _LOAD_SOME)
