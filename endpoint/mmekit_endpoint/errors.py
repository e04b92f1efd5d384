"""What the endpoint answers when it cannot do what was asked: SageMaker's errors, by their codes.

Sources: botocore's models sagemaker-runtime/2017-05-13 and sagemaker/2017-07-24.
"""

from __future__ import annotations


class EndpointError(Exception):
    """Base of all errors that a caller sees; knows its code and HTTP status."""

    code = "InternalFailure"
    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


# --- runtime (sagemaker-runtime) ---------------------------------------------------------------


class ValidationError(EndpointError):
    """Raised when a call cannot be meant as it is: endpoint, variant, target model, archive, sizes."""

    code = "ValidationError"
    status = 400


class ModelNotReady(EndpointError):
    """Raised when a target model is still downloading or loading at the end of the call's time."""

    code = "ModelNotReadyException"
    status = 429


class ModelError(EndpointError):
    """Raised when the container refuses to load, answers an error, or does not answer."""

    code = "ModelError"
    status = 424

    def __init__(
        self, message: str, original_status: int, original_message: str, log_stream_arn: str
    ) -> None:
        super().__init__(message)
        self.original_status = original_status
        self.original_message = original_message
        self.log_stream_arn = log_stream_arn


class InternalFailure(EndpointError):
    """Raised when the service itself is at fault."""


class ServiceUnavailable(EndpointError):
    """Raised when no instance can take the call, or the model store does not answer."""

    code = "ServiceUnavailable"
    status = 503


# --- control plane (sagemaker) -----------------------------------------------------------------


class ValidationException(EndpointError):
    """Raised when a request is against the service's model, or against what exists."""

    code = "ValidationException"
    status = 400


class AccessDenied(EndpointError):
    """Raised when a signature or a key is wrong, where signatures are verified."""

    code = "AccessDeniedException"
    status = 403


# --- inside the fleet --------------------------------------------------------------------------


class LaunchFailed(Exception):
    """Raised when an instance's container cannot be started; the text becomes the FailureReason."""
