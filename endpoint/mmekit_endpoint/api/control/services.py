"""AWS's services around the endpoint, which moto has: S3, STS, IAM, ECR, CloudWatch and its logs.

moto is imported by a thread while SageMaker's operations are answered already. Each service is an application
of its own, so that what moto has beside them (other services, its /moto-api) cannot be reached.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from mmekit_endpoint.api.control.dispatch import Environ, Scope, error_answer
from mmekit_endpoint.api.control.metadata_names import restore_metadata_names
from mmekit_endpoint.api.control.objects import Mirror

#: Service as signatures name it → as moto does.
BACKENDS = {
    "s3": "s3",
    "sts": "sts",
    "iam": "iam",
    "ecr": "ecr",
    "logs": "logs",
    "monitoring": "cloudwatch",
}

#: Settings of buckets and objects (sub-resources in S3's URLs) that end with the service.
_NOT_KEPT = {
    "accelerate",
    "acl",
    "cors",
    "encryption",
    "inventory",
    "legal-hold",
    "lifecycle",
    "logging",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "publicAccessBlock",
    "replication",
    "requestPayment",
    "retention",
    "website",
}

#: How long a request waits for moto to be imported and objects to be put back, in seconds.
_READY_S = 60.0

# Any: WSGI's start_response has two forms.
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

logger = logging.getLogger(__name__)


class Services:
    """moto's applications, by service. ``mirror`` is None where S3 is elsewhere."""

    def __init__(self, mirror: Mirror | None) -> None:
        self._mirror = mirror
        self._ready = threading.Event()
        self._failure: str | None = None
        self._applications: dict[str, Application] = {}
        self._lock = threading.Lock()
        self._changing = threading.Lock()
        self._told: set[str] = set()

    def start(self) -> None:
        """Begin to import moto and to put the objects back."""
        threading.Thread(target=self._load, name="moto", daemon=True).start()

    def answer(self, scope: Scope, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request of one of `BACKENDS`."""
        if not self._ready.wait(_READY_S) or self._failure:
            text = self._failure or "The services around the local endpoint are still starting; try again."
            return _failed(scope, environ, start_response, text)
        application = self._application(BACKENDS[scope.service])
        try:
            if scope.service != "s3" or self._mirror is None:
                return application(environ, start_response)
            restore_metadata_names(environ)
            return self._answer_s3(self._mirror, application, scope, environ, start_response)
        except Exception as error:  # noqa: BLE001 - the border of a request: moto has no answer to it
            request = f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO')}"
            text = f"moto, which is the service {scope.service} here, failed at {request}: {error!r}"
            logger.warning("%s", text)
            return _failed(scope, environ, start_response, text)

    def _answer_s3(
        self,
        mirror: Mirror,
        application: Application,
        scope: Scope,
        environ: Environ,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Answer a request once what it changed is on disk. Changes are made one after the other."""
        if environ["REQUEST_METHOD"] in ("GET", "HEAD", "OPTIONS"):
            return application(environ, start_response)
        begun: list[tuple[str, list[tuple[str, str]]]] = []

        def hold_back(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            begun.append((status, headers))

        settings = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True).keys()
        with self._changing:
            body = application(environ, hold_back)
            status, headers = begun[-1]
            if status.startswith("2"):
                try:
                    mirror.write(with_tags="tagging" in settings, copied="HTTP_X_AMZ_COPY_SOURCE" in environ)
                except Exception:  # the border of a request: nothing is said to be kept that is not
                    logger.exception("S3: %s could not be written to the state", environ.get("PATH_INFO"))
                    text = "The local endpoint could not write this to its state folder; its errors say why."
                    return _failed(scope, environ, start_response, text)
                self._tell_of_what_is_not_kept(settings & _NOT_KEPT)
        start_response(status, headers)
        return body

    def _tell_of_what_is_not_kept(self, settings: set[str]) -> None:
        for setting in settings - self._told:
            self._told.add(setting)
            logger.warning(
                "S3: settings of the kind ?%s end with this service; the state keeps buckets, objects, "
                "their metadata and tags",
                setting,
            )

    def _load(self) -> None:
        try:
            import moto.moto_server.werkzeug_app  # noqa: F401 - half a second; here nobody waits for it

            from mmekit_endpoint.telemetry import moto_extension

            moto_extension.install()
            if self._mirror is not None:
                self._mirror.restore()
        except Exception as error:  # the border of a thread
            logger.exception("The services around the local endpoint cannot be used")
            self._failure = f"The services around the local endpoint cannot be used: {error}"
        finally:
            self._ready.set()

    def _application(self, backend: str) -> Application:
        from moto.moto_server.werkzeug_app import create_backend_app

        name: Any = backend  # its type is a list of all services
        with self._lock:
            if backend not in self._applications:
                application: Any = create_backend_app(name)
                application.debug = False
                application.config["PROPAGATE_EXCEPTIONS"] = True  # `answer` says what failed
                self._applications[backend] = application
            return self._applications[backend]


def _failed(scope: Scope, environ: Environ, start_response: StartResponse, text: str) -> Iterable[bytes]:
    content_type, body = error_answer(scope, environ, "InternalError", text)
    start_response(
        "500 Internal Server Error",
        [("Content-Type", content_type), ("Content-Length", str(len(body)))],
    )
    return [body]
