"""The control plane as a WSGI application: SageMaker's operations in Flask, other services by moto."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from flask import Flask, Response, request

from mmekit_endpoint.api.control.context import Context
from mmekit_endpoint.api.control.definitions import Definitions
from mmekit_endpoint.api.control.dispatch import Environ, Scope, error_answer, json_error, scope_of
from mmekit_endpoint.api.control.labels import import_docker
from mmekit_endpoint.api.control.objects import Mirror
from mmekit_endpoint.api.control.operations import SageMaker
from mmekit_endpoint.api.control.services import BACKENDS, Services, StartResponse
from mmekit_endpoint.api.control.settling import Settling
from mmekit_endpoint.database import FILE_NAME, Database
from mmekit_endpoint.errors import EndpointError

#: A request of SageMaker's control plane; the largest that its model allows has about 100 KiB.
MAX_BODY_BYTES = 1024 * 1024

#: Requests that may wait for the fleet at the same time; the server has more threads.
MAX_WAITING = 48

_JSON = "application/x-amz-json-1.1"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the control plane was started."""

    #: Folder of the database and of S3's objects.
    state: Path
    #: What runs containers: docker or process.
    launcher: str
    #: Of requests that are not signed.
    region: str
    settle_s: float
    #: An object store in place of the embedded one.
    s3_endpoint_url: str | None = None


def create_app(options: Options) -> Flask:
    """Return the application; moto is still being imported then."""
    database = Database(options.state / FILE_NAME)
    definitions = Definitions(database)
    settling = Settling(database, options.settle_s, MAX_WAITING)
    sagemaker = SageMaker()
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES

    @app.post("/")
    def perform() -> Response:
        scope = scope_of(request.environ)
        context = Context(database, definitions, settling, options.launcher, scope.region or options.region)
        try:
            answer = sagemaker.perform(scope.operation, context, request.get_data())
        except EndpointError as error:
            return Response(json_error(error.code, error.message), error.status, content_type=_JSON)
        return Response(b"" if answer is None else msgspec.json.encode(answer), content_type=_JSON)

    @app.errorhandler(413)
    def too_large(_: Exception) -> Response:
        text = f"The body of a request has at most {MAX_BODY_BYTES} bytes."
        return Response(json_error("RequestEntityTooLargeException", text), 413, content_type=_JSON)

    @app.errorhandler(404)
    @app.errorhandler(405)
    def no_operation(_: Exception) -> Response:
        text = f"The local endpoint has nothing at {request.method} {request.path} for the service sagemaker."
        return Response(json_error("UnknownOperationException", text), 400, content_type=_JSON)

    @app.errorhandler(Exception)
    def internal(error: Exception) -> Response:
        logger.error("%s failed", request.headers.get("X-Amz-Target"), exc_info=error)
        text = "The local endpoint failed to answer; its errors say why."
        return Response(json_error("InternalFailure", text), 500, content_type=_JSON)

    if options.launcher == "docker":
        import_docker()
    services = Services(None if options.s3_endpoint_url else Mirror(options.state / "s3"))
    services.start()
    # Any: Flask's own way to put WSGI around an application is to assign to its method.
    wrapped: Any = _Dispatch(app.wsgi_app, services, options.s3_endpoint_url)
    app.wsgi_app = wrapped  # type: ignore[method-assign]  # Flask's documented place for WSGI middleware
    return app


class _Dispatch:
    """Gives each request to the service that it is for, and each answer a request id."""

    def __init__(self, sagemaker: Any, services: Services, s3_endpoint_url: str | None) -> None:
        self._sagemaker = sagemaker
        self._services = services
        self._s3_endpoint_url = s3_endpoint_url

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def with_request_id(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if not any(name.lower() == "x-amzn-requestid" for name, _ in headers):
                headers = [*headers, ("x-amzn-RequestId", str(uuid.uuid4()))]
            return start_response(status, headers, exc_info)

        scope = scope_of(environ)
        if scope.service == "sagemaker":
            answer: Iterable[bytes] = self._sagemaker(environ, with_request_id)
            return answer
        if scope.service == "s3" and self._s3_endpoint_url:
            text = (
                f"This local endpoint uses the object store at {self._s3_endpoint_url} and has none itself. "
                f"Set AWS_ENDPOINT_URL_S3={self._s3_endpoint_url} for your client."
            )
            return _refused(scope, environ, with_request_id, text)
        if scope.service not in BACKENDS:
            text = (
                f"The local endpoint does not offer the service {scope.service}. It has sagemaker, "
                f"sagemaker-runtime and, around them, {', '.join(BACKENDS)}. Leave this call out, or set the "
                "service's own AWS_ENDPOINT_URL_… variable."
            )
            return _refused(scope, environ, with_request_id, text)
        return self._services.answer(scope, environ, with_request_id)


def _refused(scope: Scope, environ: Environ, start_response: StartResponse, text: str) -> Iterable[bytes]:
    content_type, body = error_answer(scope, environ, "ValidationException", text)
    start_response("400 Bad Request", [("Content-Type", content_type), ("Content-Length", str(len(body)))])
    return [body]
