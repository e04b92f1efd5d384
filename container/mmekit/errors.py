"""Everything that can go wrong, as one tree; imports nothing.

Each error knows the HTTP status it is answered with and its ``type``, the name in the JSON body
``{"code", "type", "message"}``. Names are those of Multi Model Server where it has one
(MMS: frontend/server ... http/HttpRequestHandler.java), because clients and dashboards match on
them. Nothing here knows how an answer is written; ``server.routes`` does that in one place.
"""

from __future__ import annotations


class MmekitError(Exception):
    """Base of all errors that are answered or printed with their own text."""

    status = 500
    type = "InternalServerException"

    @property
    def message(self) -> str:
        """The sentence for the caller: what was expected, what came, what to do."""
        return str(self.args[0]) if self.args else self.__class__.__name__


class ConfigError(MmekitError):
    """Raised at start when a setting has a value that cannot be used."""


class CannotListen(MmekitError):
    """Raised at start when an address cannot be had."""


# --- the caller's mistakes -----------------------------------------------------------------


class BadRequest(MmekitError):
    """Raised when a request, its parameters or its body cannot be used as they are."""

    status = 400
    type = "BadRequestException"


class InvalidModel(MmekitError):
    """Raised when a model folder, archive or manifest is not one that can be loaded at all."""

    status = 400
    type = "InvalidModelException"


class ModelTooLarge(InvalidModel):
    """Raised when an archive unpacks to more than is allowed."""


class DownloadModelError(MmekitError):
    """Raised when a model's archive is not to be downloaded from a url, or cannot be."""

    status = 400
    type = "DownloadModelException"


class ResourceNotFound(MmekitError):
    """Raised when no route has the requested path."""

    status = 404
    type = "ResourceNotFoundException"


class ModelNotFound(MmekitError):
    """Raised when a model is not loaded, or when the folder to load is not there."""

    status = 404
    type = "ModelNotFoundException"


class MethodNotAllowed(MmekitError):
    """Raised when the path exists but not with this method."""

    status = 405
    type = "MethodNotAllowedException"


class NotAcceptable(MmekitError):
    """Raised when none of the types in ``Accept`` can be produced for this prediction."""

    status = 406
    type = "NotAcceptableException"


class RequestTimeout(MmekitError):
    """Raised when a client stops sending in the middle of a request."""

    status = 408
    type = "RequestTimeoutException"


class Conflict(MmekitError):
    """Raised when the name of a model to load is taken."""

    status = 409
    type = "ConflictStatusException"


class PayloadTooLarge(MmekitError):
    """Raised when a body is over the limit."""

    status = 413
    type = "PayloadTooLargeException"


class UnsupportedMediaType(MmekitError):
    """Raised when a model cannot read bodies of this content type."""

    status = 415
    type = "UnsupportedMediaTypeException"


# --- the model's -----------------------------------------------------------------------------


class ModelLoadError(MmekitError):
    """Raised when a model cannot be loaded; the text carries exception, message and file:line."""


class PredictionFailed(MmekitError):
    """Raised when a model's code raises, or returns what cannot be an answer."""


class WorkerDied(MmekitError):
    """Raised when the process that ran a call ended before it answered."""


class NotStarted(WorkerDied):
    """Raised when a worker ended before it came to what waited for it: another may do it."""


class PredictionTimeout(MmekitError):
    """Raised when a model does not answer before its deadline; its worker is replaced."""

    status = 504
    type = "PredictionTimeoutException"


# --- the server's ----------------------------------------------------------------------------


class ServiceUnavailable(MmekitError):
    """Raised when a queue is full, a model is quarantined or the server is stopping.

    ``retry_after_s`` becomes the header ``Retry-After`` (RFC 9110, 10.2.3), whole seconds.
    """

    status = 503
    type = "ServiceUnavailableException"

    def __init__(self, message: str, retry_after_s: int | None = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OutOfResources(MmekitError):
    """Raised when memory, device memory, processes or descriptors are short.

    507 tells SageMaker to unload other models and try again (AWS: mms-container-apis), so this is
    raised only where unloading another model would help.
    """

    status = 507
    type = "OutOfMemoryError"
