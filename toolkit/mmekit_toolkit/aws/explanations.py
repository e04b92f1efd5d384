"""What botocore's errors mean for a person: one sentence and what to do."""

from __future__ import annotations

from collections.abc import Callable

from botocore import exceptions as botocore

from mmekit_toolkit.errors import CredentialsError, ToolkitError

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_UNKNOWN_KEY = {
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "AllAccessDisabled",
    "AuthorizationError",
    "Forbidden",
    "UnauthorizedOperation",
    "403",
}
_THROTTLED = {
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}


def code(error: botocore.ClientError) -> str:
    """Return the error's code, such as ``ValidationException``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def text(error: botocore.ClientError) -> str:
    """Return the service's own sentence."""
    return str(error.response.get("Error", {}).get("Message", "")) or code(error)


def explain(error: Exception) -> ToolkitError | None:
    """Return the error with an explanation in place of botocore's, None for what is not botocore's."""
    if isinstance(error, botocore.ClientError):
        return _explain_answer(error)
    for kind, explanation in _OTHERS.items():
        if isinstance(error, kind):
            return explanation(error)
    if isinstance(error, botocore.BotoCoreError):
        return ToolkitError(f"{error}")
    return None


def _explain_answer(error: botocore.ClientError) -> ToolkitError:
    operation, what = error.operation_name, code(error)
    if what in _EXPIRED:
        return CredentialsError(
            f"{operation}: the credentials have expired. Sign in again (`aws sso login`) and run the command "
            "once more: what it did is kept."
        )
    if what in _UNKNOWN_KEY:
        return CredentialsError(
            f"{operation}: AWS does not accept the credentials ({text(error)}). Check the key, its secret "
            "and this machine's clock: `aws sts get-caller-identity` must answer."
        )
    if what in _DENIED:
        return CredentialsError(
            f"{operation}: not allowed ({text(error)}). `mmekit iam deployer` prints the policy that the "
            "commands need."
        )
    if what in _THROTTLED:
        attempts = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) + 1
        return ToolkitError(
            f"{operation}: AWS throttles this account's calls ({what}, {attempts} attempts). Run the command "
            "again in a minute: what it did is kept."
        )
    return ToolkitError(f"{operation}: {text(error)} ({what})")


def _no_answer(error: Exception) -> ToolkitError:
    return ToolkitError(
        f"{error} Check the region's name, --endpoint-url or AWS_ENDPOINT_URL, and the network."
    )


def _no_credentials(error: Exception) -> ToolkitError:
    return CredentialsError(
        f"{error}. Sign in (`aws sso login`, `aws configure`) or choose another --profile."
    )


#: Kind of error → how it is explained; the first that fits.
_OTHERS: dict[type[Exception], Callable[[Exception], ToolkitError]] = {
    botocore.NoCredentialsError: _no_credentials,
    botocore.PartialCredentialsError: _no_credentials,
    botocore.CredentialRetrievalError: _no_credentials,
    botocore.TokenRetrievalError: _no_credentials,
    botocore.SSOError: _no_credentials,
    botocore.ProfileNotFound: _no_credentials,
    botocore.EndpointConnectionError: _no_answer,
    botocore.HTTPClientError: _no_answer,
    botocore.ConnectionError: _no_answer,
}
