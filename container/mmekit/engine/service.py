"""The handler that Multi Model Server runs for models without one of their own: ours, by its rules.

``handle(data, context)`` is called by MMS's worker, which is a process for one model: without data
to load it, then with a batch of requests. The model is looked at, its handler chosen and loaded as
the native engine's workers do it; statuses, headers and errors go back through MMS's Context.
"""

from __future__ import annotations

import json
import os
from typing import Any

from mmekit import artifact, choice, requirements
from mmekit.engine import handover
from mmekit.engine.inputs import request_of
from mmekit.errors import OutOfResources
from mmekit.worker import failures, loader
from mmekit.worker.messages import Load
from mmekit.worker.metrics import reported
from mmekit_handlers.base import Response

#: The model of this process.
_model: loader.LoadedModel | None = None


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[bytes] | None:
    """Load the model of ``context`` when ``data`` is None, else answer a batch of requests.

    Raises ``MemoryError`` where MMS is to answer 507, and at load whatever makes the load fail.
    """
    global _model
    try:
        if data is None:
            _model = _load(context)
            return None
        return _predict(data, context)
    finally:
        _report(context)


def _predict(data: list[dict[str, Any]], context: Any) -> list[bytes]:
    assert _model is not None  # MMS loads before it asks
    requests = [
        request_of(row, context.get_all_request_header(index), context.get_request_id(index) or "")
        for index, row in enumerate(data)
    ]
    results = _model(requests)
    if all(isinstance(result, MemoryError) for result in results):
        raise MemoryError(str(results[0]))
    return [_answer(result, index, context) for index, result in enumerate(results)]


def _report(context: Any) -> None:
    """Hand what a handler reported to its own ``context.metrics`` to MMS, which logs it after the call."""
    for store in reported:
        context.metrics.store.extend(store.store)
    reported.clear()


def _load(context: Any) -> loader.LoadedModel:
    properties = context.system_properties
    image = handover.from_environ(os.environ)
    found = artifact.inspect(properties["model_dir"], image.program)
    chosen = choice.choose(found, None, image)
    requirements.check(found)
    message = Load(
        model=context.model_name,
        path=found.path,
        handler=chosen.handler,
        program=chosen.program,
        runtime=chosen.runtime,
        code_dirs=list(chosen.code_dirs),
        batch_size=int(properties.get("batch_size") or 1),
        gpu_id=properties.get("gpu_id"),
        grant_bytes=None,
        manifest=found.manifest_text,
        decode=os.environ.get("MMS_DECODE_INPUT_REQUEST", "").lower() == "true",
    )
    try:
        return loader.load(message, os.environ)
    except Exception as error:
        failure = failures.failure_of(error, chosen.code_dirs, "load")
        failures.log_failure(error, context.model_name, failure)
        if failure.status == OutOfResources.status:
            raise MemoryError(failure.message) from error
        raise


def _answer(result: loader.Result, index: int, context: Any) -> bytes:
    """Set status and headers of one answer; return its body."""
    if isinstance(result, Response):
        try:
            body = result.body if isinstance(result.body, bytes) else b"".join(result.body)
        except Exception as error:  # noqa: BLE001 - a generator is people's code too
            return _error(error, index, context)
        context.set_response_status(result.status, result.reason, index)
        if result.content_type is not None:
            context.set_response_content_type(index, result.content_type)
        for name, value in result.headers:
            context.set_response_header(index, name, value)
        return body
    return _error(result, index, context)


def _error(error: BaseException, index: int, context: Any) -> bytes:
    """Answer one request of a batch with an error; MMS itself can only fail the whole batch."""
    code_dirs = _model.code_dirs if _model else []
    failure = failures.failure_of(error, code_dirs, "invoke")
    failures.log_failure(error, context.model_name, failure)
    context.set_response_status(failure.status, "", index)
    context.set_response_content_type(index, "application/json")
    fields = {"code": failure.status, "type": failure.type, "message": failure.message}
    return json.dumps(fields, indent=2).encode() + b"\n"
