"""The OpenAPI 3.0.1 documents that ``OPTIONS /`` and ``/api-description`` answer (contract 2.2).

Each connector has its own; a port with all routes has their union. ``OPTIONS`` on a model's own route
answers a document of that model alone. MMS: openapi/OpenApiUtils.java has the same routes; the words, and
what of them is true, are ours.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from mmekit import __version__
from mmekit.archive.manifest import RUNTIMES
from mmekit.config import Config
from mmekit.server.model import Model

Json = dict[str, Any]

_JSON = "application/json"
_ANY = "*/*"

_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_BYTES = {"type": "string", "format": "binary"}


def document(config: Config, inference: bool, management: bool) -> Json:
    """Describe what a connector serves."""
    paths = {
        **(_inference(config) if inference else {}),
        **(_management(config) if management else {}),
        **_about(),
    }
    titles = {
        (True, True): "Inference and management",
        (True, False): "Inference",
        (False, True): "Management",
    }
    return _document(f"{titles[inference, management]} API of mmekit", paths)


def model_document(config: Config, model: Model) -> Json:
    """Describe how one model is called."""
    operation = _prediction(config, f"Ask the model {model.name} for a prediction.", "predict", [])
    path = f"/predictions/{quote(model.name, safe='')}"
    return _document(f"The model {model.name}", {path: {"post": operation}})


def _document(title: str, paths: Json) -> Json:
    return {
        "openapi": "3.0.1",
        "info": {"title": title, "version": __version__},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


# --- routes --------------------------------------------------------------------------------------


def _inference(config: Config) -> Json:
    model = [_MODEL]
    named = _query("model_name", _TEXT, "Name of the model; may be left out where there is only one.")
    return {
        "/ping": {
            "get": _operation(
                "Whether the server can take requests; never waits for a model.",
                "ping",
                [],
                _answers(("200", "It can.", "Status"), ("503", "It starts or stops.", "Status")),
            )
        },
        "/predictions/{model_name}": {
            "post": _prediction(config, "Ask a model for a prediction.", "predictions", model),
            "options": _description("Describe one model.", "describePredictions", model, "404"),
        },
        "/models/{model_name}/invoke": {
            "post": _prediction(
                config,
                "Ask a model for a prediction. Parameters of the query are inputs, too.",
                "invoke",
                model,
            ),
            "options": _description("Describe one model.", "describeInvoke", model, "404"),
        },
        "/invocations": {
            "post": _prediction(
                config, "Ask the only model, or the one that is named.", "invocations", [named]
            )
        },
        "/{model_name}/predict": {
            "post": {
                **_prediction(config, "The same as /models/{model_name}/invoke.", "legacyPredict", model),
                "deprecated": True,
            }
        },
        "/execution-parameters": {
            "get": _operation(
                "How SageMaker's batch transform is to call this server.",
                "executionParameters",
                [],
                _answers(("200", "The parameters.", "ExecutionParameters")),
            )
        },
    }


def _management(config: Config) -> Json:
    model = [_MODEL]
    workers = _whole(0, 1024)
    return {
        "/models": {
            "get": _operation(
                "List the models that are registered, by name.",
                "listModels",
                [
                    _query("limit", _whole(1, 100, 100), "Models on a page; other values are taken as 100."),
                    _query("next_page_token", _TEXT, "The nextPageToken of the page before."),
                ],
                _answers(("200", "A page of models.", "ModelList"), *_errors("400")),
            ),
            "post": {
                **_operation(
                    "Register a model and load it. Parameters come in the query or, with "
                    "Content-Type application/json, in the body.",
                    "registerModel",
                    [
                        _query(name, schema, _REGISTRATION_TEXTS[name])
                        for name, schema in _registration(config, in_json=False).items()
                    ],
                    _answers(
                        ("200", "The model can be invoked, or is registered without workers.", "Status"),
                        ("202", "It is being loaded (synchronous=false).", "Status"),
                        ("210", "Another request changed the number of its workers meanwhile.", "Status"),
                        *_errors("400", "404", "409", "500", "507"),
                    ),
                ),
                "requestBody": {
                    "content": {
                        _JSON: {
                            "schema": {
                                "type": "object",
                                "required": ["url"],
                                "properties": {
                                    name: {**schema, "description": _REGISTRATION_TEXTS[name]}
                                    for name, schema in _registration(config, in_json=True).items()
                                },
                            }
                        }
                    }
                },
            },
        },
        "/models/{model_name}": {
            "get": _operation(
                "Describe a model and its workers.",
                "describeModel",
                model,
                _answers(("200", "The model.", "Model"), *_errors("404")),
            ),
            "put": _operation(
                "Set how many workers hold a model; 0 frees them and keeps the model registered.",
                "scaleModel",
                [
                    *model,
                    _query("min_worker", {**workers, "default": 1}, "Workers that hold it at least."),
                    _query("max_worker", workers, "Workers that may hold it; as min_worker if not given."),
                    _query("synchronous", {**_FLAG, "default": False}, "Answer when the workers are there."),
                    _query("number_gpu", _TEXT, "Changes nothing."),
                    _query("timeout", _TEXT, "Changes nothing."),
                ],
                _answers(
                    ("200", "The workers are there.", "Status"),
                    ("202", "They are on their way.", "Status"),
                    ("210", "Another request changed the number meanwhile.", "Status"),
                    *_errors("400", "404", "500", "507"),
                ),
            ),
            "delete": _operation(
                "Unload a model. Requests that it has are answered first.",
                "unregisterModel",
                model,
                _answers(("200", "Its memory is free.", "Status"), *_errors("404", "408")),
            ),
        },
    }


def _about() -> Json:
    return {
        "/": {"options": _description("Describe the routes of this address.", "apiDescription", [])},
        "/api-description": {
            "get": _description("Describe the routes of this address.", "getDescription", [])
        },
        "/metrics": {
            "get": _operation(
                "What the server has done, in the text format of Prometheus.",
                "metrics",
                [],
                {"200": {"description": "The metrics.", "content": {"text/plain": {"schema": _TEXT}}}},
            )
        },
    }


_REGISTRATION_TEXTS = {
    "url": "Archive or folder of the model: its place in the model store, or an http(s) URL where those "
    "are allowed. Required.",
    "model_name": "Name of the model; the manifest's if not given.",
    "handler": "Entry point, module:function or module:class; the manifest's if not given.",
    "runtime": "What the handler is written in; the manifest's if not given.",
    "batch_size": "Requests that a handler takes at once.",
    "max_batch_delay": "Milliseconds that a request waits for others to share its batch.",
    "initial_workers": "Workers that are to hold the model.",
    "synchronous": "Answer when the workers are there.",
    "response_timeout": "How long the model may take to answer: seconds in JSON, minutes in the query.",
    "preload_model": "Fork further workers from one that has loaded the model.",
}


def _registration(config: Config, in_json: bool) -> Json:
    """Return the parameters of a registration with this server's defaults."""
    timeout: Json = _whole(1, 86_400) if in_json else _whole(1, 1440)
    unit_s = 1 if in_json else 60
    if config.invoke_timeout_s % unit_s == 0 and 1 <= config.invoke_timeout_s // unit_s <= timeout["maximum"]:
        timeout["default"] = int(config.invoke_timeout_s // unit_s)
    return {
        "url": _TEXT,
        "model_name": _TEXT,
        "handler": _TEXT if config.handler is None else {**_TEXT, "default": config.handler},
        "runtime": {**_TEXT, "enum": list(RUNTIMES)},
        "batch_size": _whole(1, 10_000, 1),
        "max_batch_delay": _whole(0, 3_600_000, 0),
        "initial_workers": _whole(0, 1024, config.copies),
        "synchronous": {**_FLAG, "default": True},
        "response_timeout": timeout,
        "preload_model": {**_FLAG, "default": config.preload_model},
    }


# --- parts ---------------------------------------------------------------------------------------

_MODEL = {
    "name": "model_name",
    "in": "path",
    "required": True,
    "schema": _TEXT,
    "description": "Name of the model, percent-encoded.",
}

_ERRORS = {
    "400": "A request, a parameter or a body that cannot be used.",
    "404": "No such model, or nothing where its url points.",
    "408": "The model did not end in time.",
    "409": "The name is taken.",
    "500": "The model's code failed or ended its process.",
    "503": "Too many requests wait, nothing holds the model, or its handler failed.",
    "504": "The model did not answer in time.",
    "507": "Memory is short; unloading another model would help.",
}


def _operation(summary: str, identifier: str, parameters: list[Json], responses: Json) -> Json:
    found: Json = {"summary": summary, "operationId": identifier}
    if parameters:
        found["parameters"] = parameters
    return {**found, "responses": responses}


def _prediction(config: Config, summary: str, identifier: str, parameters: list[Json]) -> Json:
    too_large = f"The body has more than {config.max_body_bytes} bytes ({config.max_body_setting})."
    responses = {
        "default": {
            "description": "The model's answer, with the status and the headers that it chose.",
            "content": {_ANY: {"schema": _BYTES}},
        },
        **_answers(*_errors("400", "404", "500", "503", "504", "507"), ("413", too_large, "Error")),
    }
    body = {
        "description": "The model's input.",
        "content": {
            _ANY: {"schema": _BYTES},
            _JSON: {"schema": {}},
            "application/x-www-form-urlencoded": {"schema": {"type": "object"}},
            "multipart/form-data": {"schema": {"type": "object"}},
        },
    }
    return {**_operation(summary, identifier, parameters, responses), "requestBody": body}


def _description(summary: str, identifier: str, parameters: list[Json], *errors: str) -> Json:
    answer = {
        "description": "An OpenAPI document.",
        "content": {_JSON: {"schema": {"type": "object"}}},
    }
    return _operation(summary, identifier, parameters, {"200": answer, **_answers(*_errors(*errors))})


def _answers(*answers: tuple[str, str, str]) -> Json:
    """Return responses: status, meaning, schema of the JSON body."""
    return {
        status: {
            "description": meaning,
            "content": {_JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
        }
        for status, meaning, schema in answers
    }


def _errors(*statuses: str) -> list[tuple[str, str, str]]:
    return [(status, _ERRORS[status], "Error") for status in statuses]


def _query(name: str, schema: Json, meaning: str) -> Json:
    return {"name": name, "in": "query", "schema": schema, "description": meaning}


def _whole(minimum: int, maximum: int, default: int | None = None) -> Json:
    bounds: Json = {"type": "integer", "minimum": minimum, "maximum": maximum}
    return bounds if default is None else {**bounds, "default": default}


def _object(properties: Json, *optional: str) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


_COUNT = {"type": "integer"}

_SCHEMAS = {
    "Status": _object({"status": _TEXT}),
    "Error": _object({"code": _COUNT, "type": _TEXT, "message": _TEXT}),
    "ModelList": _object(
        {
            "nextPageToken": {**_TEXT, "description": "There while there are more."},
            "models": {"type": "array", "items": _object({"modelName": _TEXT, "modelUrl": _TEXT})},
        },
        "nextPageToken",
    ),
    "Model": _object(
        {
            "modelName": _TEXT,
            "modelVersion": _TEXT,
            "modelUrl": _TEXT,
            "engine": _TEXT,
            "runtime": _TEXT,
            "minWorkers": _COUNT,
            "maxWorkers": _COUNT,
            "batchSize": _COUNT,
            "maxBatchDelay": _COUNT,
            "loadedAtStartup": _FLAG,
            "workers": {
                "type": "array",
                "items": _object(
                    {
                        "id": _TEXT,
                        "startTime": {"type": "string", "format": "date-time"},
                        "status": {"type": "string", "enum": ["READY", "UNLOADING"]},
                        "gpu": _FLAG,
                        "memoryUsage": {**_COUNT, "description": "Bytes."},
                    }
                ),
            },
        },
        "modelVersion",
        "engine",
    ),
    "ExecutionParameters": _object(
        {
            "MaxConcurrentTransforms": _COUNT,
            "BatchStrategy": {"type": "string", "enum": ["MULTI_RECORD"]},
            "MaxPayloadInMB": _COUNT,
        }
    ),
}
