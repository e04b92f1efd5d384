"""Parameters of the requests that register and scale a model, from the JSON body or the query."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from mmekit.archive.manifest import checked_runtime
from mmekit.errors import BadRequest
from mmekit.http.message import Request, parse_query
from mmekit.server.model import Registration, Scaling, check_name
from mmekit.worker.messages import header_text

#: A load's body is a name and a path; parsing must not hold the loop.
_MAX_PARAMETERS_BYTES = 1024 * 1024

_MAX_WORKERS = 1024
_DAY_S = 86_400

Default = TypeVar("Default")


def registration(request: Request) -> Registration:
    """Read ``POST /models``: JSON when the body says so, else the query (contract 2.5).

    Without a name it is empty: the manifest has it. As in MMS, ``response_timeout`` is in seconds in
    JSON and in minutes in the query. Raises BadRequest that names the parameter, its value and what
    was expected.
    """
    is_json = _is_json(request)
    values = _body(request) if is_json else parse_query(request.query)
    url = _text(values, "url")
    if not url:
        raise BadRequest(
            "Parameter url is required. Expected the model's folder or archive, such as "
            "/opt/ml/models/NAME/model."
        )
    name = _text(values, "model_name")
    check_name(name)
    runtime = _text(values, "runtime")
    unit_s = 1 if is_json else 60
    timeout = _count(values, "response_timeout", None, 1, _DAY_S // unit_s)
    target = request.header(b"x-amzn-sagemaker-target-model") or b""
    return Registration(
        name=name,
        url=url,
        handler=_text(values, "handler") or None,
        runtime=checked_runtime(runtime) if runtime else None,
        batch_size=_count(values, "batch_size", 1, 1, 10_000),
        max_batch_delay_ms=_count(values, "max_batch_delay", 0, 0, 3_600_000),
        initial_workers=_count(values, "initial_workers", None, 0, _MAX_WORKERS),
        preload=_flag(values, "preload_model", None),
        synchronous=_flag(values, "synchronous", True),
        response_timeout_s=None if timeout is None else timeout * unit_s,
        target_model=header_text(target),
    )


def scaling(request: Request) -> Scaling:
    """Read the query of ``PUT /models/{name}`` (contract 2.6). Raises BadRequest.

    ``number_gpu`` and ``timeout`` change nothing, as in MMS.
    """
    values = parse_query(request.query)
    minimum = _count(values, "min_worker", 1, 0, _MAX_WORKERS)
    maximum = _count(values, "max_worker", minimum, 0, _MAX_WORKERS)
    if maximum < minimum:
        raise BadRequest(
            f"max_worker cannot be less than min_worker. They are {maximum} and {minimum}; without "
            f"min_worker it is 1."
        )
    return Scaling(minimum, maximum, _flag(values, "synchronous", False))


def _is_json(request: Request) -> bool:
    media_type = (request.header(b"content-type") or b"").partition(b";")[0].strip()
    return media_type.lower() == b"application/json"


def _body(request: Request) -> Mapping[str, Any]:
    if len(request.body) > _MAX_PARAMETERS_BYTES:
        raise BadRequest(
            f"The body of a load is {len(request.body)} bytes; at most {_MAX_PARAMETERS_BYTES} are read."
        )
    try:
        values = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is not JSON: {error}.") from None
    if not isinstance(values, dict):
        raise BadRequest(
            f'The body must be a JSON object such as {{"model_name": …, "url": …}}, not {_kind(values)}.'
        )
    return values


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRequest(f"Parameter {name} must be a string, not {_kind(value)}.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"Parameter {name} has a lone surrogate, half a character: {value!a:.99}.") from None
    return value


def _count(
    values: Mapping[str, Any], name: str, default: Default, minimum: int, maximum: int
) -> int | Default:
    """Return a whole number; a text of one is taken too, as MMS does."""
    value = values.get(name)
    if value is None or value == "":
        return default
    number = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and re.fullmatch("-?[0-9]{1,18}", value):
        number = int(value)
    if number is None or not minimum <= number <= maximum:
        raise BadRequest(
            f"Parameter {name} must be a whole number from {minimum} to {maximum}, not {value!r:.100}."
        )
    return number


def _flag(values: Mapping[str, Any], name: str, default: Default) -> bool | Default:
    """Return true or false; a text of one is taken too, as MMS does."""
    value = values.get(name)
    if value is None or value == "":
        return default
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise BadRequest(f"Parameter {name} must be true or false, not {value!r:.100}.")
    return value


def _kind(value: object) -> str:
    return {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }.get(type(value), "null")
