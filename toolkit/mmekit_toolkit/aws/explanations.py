"""What botocore's errors mean for a person: one sentence and what to do.

botocore itself is imported when there is an error to explain: commands' help does without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mmekit_toolkit.errors import CredentialsError, ToolkitError

if TYPE_CHECKING:
    from botocore import exceptions as botocore

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_UNKNOWN_KEY = {
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
#: Codes of a refusal for want of permission; each service has its own.
DENIED = {
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

#: Of an answer that is not AWS's.
_SHOWN_CHARACTERS = 100


def code(error: botocore.ClientError) -> str:
    """Return the error's code, such as ``ValidationException``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def text(error: botocore.ClientError) -> str:
    """Return the service's own sentence."""
    return str(error.response.get("Error", {}).get("Message", "")) or code(error)


def explain(error: Exception) -> ToolkitError | None:
    """Return the error with an explanation in place of botocore's, None for what is not botocore's."""
    from botocore import exceptions as botocore

    if isinstance(error, botocore.ClientError):
        return _explain_answer(error)
    for name, explanation in _OTHERS.items():
        if isinstance(error, getattr(botocore, name)):
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
    if what in DENIED:
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
    if what.isdigit():
        return ToolkitError(
            f"{operation}: the answer was HTTP {what} and none of AWS's own "
            f"({text(error)[:_SHOWN_CHARACTERS]!r}). Is there a proxy in between, or another address in "
            "AWS_ENDPOINT_URL than meant?"
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


#: botocore's name of an error → how it is explained; the first that fits.
_OTHERS: dict[str, Callable[[Exception], ToolkitError]] = {
    "NoCredentialsError": _no_credentials,
    "PartialCredentialsError": _no_credentials,
    "CredentialRetrievalError": _no_credentials,
    "TokenRetrievalError": _no_credentials,
    "SSOError": _no_credentials,
    "ProfileNotFound": _no_credentials,
    "EndpointConnectionError": _no_answer,
    "HTTPClientError": _no_answer,
    "ConnectionError": _no_answer,
}
