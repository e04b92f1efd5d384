"""One call of a model, and more while it is being loaded; what a model's errors mean."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmekit_toolkit.aws import explanations
from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.errors import CredentialsError, NotFound, ToolkitError

#: The model is still on its way to an instance; that goes on (AWS: "Invoke a Multi-Model Endpoint").
LOADING = "ModelNotReadyException"
#: What another try may cure soon, or else not at all. ModelError is none: the model has had the call.
_PASSING = frozenset({"ServiceUnavailable", "Throttling", "ThrottlingException", "TooManyRequestsException"})
_PASSING_S = 20.0
#: Waits between tries are random, below bounds that double from the first to the last.
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 8.0
#: What is shown of a container's own message.
_SHOWN_CHARACTERS = 2000


@dataclass(frozen=True)
class Answer:
    """What the container answered, untouched."""

    body: bytes
    content_type: str
    variant: str
    custom_attributes: str
    #: Of the last try, as the caller sees it.
    latency_s: float
    tries: int


@dataclass(frozen=True)
class Again:
    """Another try follows."""

    code: str
    waited_s: float
    wait_s: float


def invoke(
    aws: Aws, request: Mapping[str, Any], *, patience_s: float, tell: Callable[[Again], None]
) -> Answer:
    """Call ``InvokeEndpoint``, and again while the model is not loaded yet.

    Parameters
    ----------
    request
        As boto3 takes it; ``Body`` is bytes.
    patience_s
        No try begins later than this after the first; each takes 60 s at the most (RT: InvokeEndpoint).
    tell
        Is called before each further try.

    Raises
    ------
    NotFound
        Without such an endpoint.
    ToolkitError
        With the container's status, its message and where its log is, or what SageMaker said.
    """
    from botocore.exceptions import ClientError, ReadTimeoutError

    runtime = aws.client("sagemaker-runtime")
    began = time.monotonic()
    for tries, longest_wait_s in enumerate(_bounds(), 1):
        sent = time.monotonic()
        try:
            found = runtime.invoke_endpoint(**request)
            body = found["Body"].read()
        except ClientError as error:
            code, waited_s = explanations.code(error), time.monotonic() - began
            wait_s = random.uniform(longest_wait_s / 2, longest_wait_s)
            if waited_s + wait_s > _patience(code, patience_s):
                raise explain(error, request, waited_s) or error from error
            tell(Again(code, waited_s, wait_s))
            time.sleep(wait_s)  # the service gives no event to wait for
        except ReadTimeoutError as error:
            raise ToolkitError(
                f"no answer within {time.monotonic() - sent:.0f} s, where SageMaker gives one within 60. The "
                f"model may have had the call: `mmekit logs {request['EndpointName']}` shows what it wrote."
            ) from error
        else:
            return Answer(
                body,
                found.get("ContentType", ""),
                found.get("InvokedProductionVariant", ""),
                found.get("CustomAttributes", ""),
                time.monotonic() - sent,
                tries,
            )
    raise AssertionError("unreachable: the bounds do not end")


def explain(error: Any, request: Mapping[str, Any], waited_s: float) -> ToolkitError | None:
    """Return what an error of InvokeEndpoint means; None for what `explanations` has for all services."""
    code, text = explanations.code(error), explanations.text(error)
    endpoint, model = request["EndpointName"], request["TargetModel"]
    if code == "ModelError":
        return ToolkitError(_container_said(error.response, endpoint))
    if code == LOADING:
        return ToolkitError(
            f"{model} is still not loaded after {waited_s:.0f} s. Loading goes on: call again. `mmekit logs "
            f"{endpoint}` shows what the container says of it."
        )
    if code in explanations.DENIED:
        return CredentialsError(
            f"calling {model} of {endpoint} is not allowed ({text}). `mmekit iam caller` prints the policy "
            "that callers need; yours may be for other models only."
        )
    if code == "ValidationError" and "not found" in text and endpoint in text:
        return NotFound(f"{text} Check the name, --region and --profile.")
    if code == "ValidationError":
        return ToolkitError(f"SageMaker does not take the call: {text}")
    if code in _PASSING or code in ("InternalFailure", "InternalDependencyException"):
        return ToolkitError(
            f"SageMaker could not take the call within {waited_s:.0f} s ({code}: {text}). `mmekit status "
            f"{endpoint}` shows its instances."
        )
    return None


def _container_said(response: Mapping[str, Any], endpoint: str) -> str:
    status = response.get("OriginalStatusCode", 0)
    message = str(response.get("OriginalMessage") or response["Error"].get("Message", "")).strip()
    if len(message) > _SHOWN_CHARACTERS:
        message = message[:_SHOWN_CHARACTERS] + "…"
    log = str(response.get("LogStreamArn", ""))
    logged = f"Its log: `mmekit logs {endpoint}`" + (f" ({log})." if log else ".")
    if not status:
        return f"the container did not answer: {message}\n{logged}"
    what = "does not take the request" if 400 <= status < 500 else "failed"
    return f"the model {what}: the container answered {status}: {message}\n{logged}"


def _patience(code: str, patience_s: float) -> float:
    if code == LOADING:
        return patience_s
    return min(patience_s, _PASSING_S) if code in _PASSING else -1.0


def _bounds() -> Iterator[float]:
    bound = _FIRST_WAIT_S
    while True:
        yield bound
        bound = min(2 * bound, _LONGEST_WAIT_S)
