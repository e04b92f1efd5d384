"""Takes the steps of a plan, one after the other, and can say at any time what was done and what was not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError

from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.aws.explanations import code, explain, text
from mmekit_toolkit.deploy.observed import Described
from mmekit_toolkit.deploy.observing import Reader, describe_endpoint
from mmekit_toolkit.deploy.progress import Progress
from mmekit_toolkit.deploy.requests import Request, Step, Wait
from mmekit_toolkit.deploy.waiting import Waiting
from mmekit_toolkit.errors import RolledBack, ToolkitError

#: Operation that creates → (member with the name, operation that describes, member with the ARN).
_CREATIONS = {
    "CreateModel": ("ModelName", "DescribeModel", "ModelArn"),
    "CreateEndpointConfig": ("EndpointConfigName", "DescribeEndpointConfig", "EndpointConfigArn"),
    "CreateEndpoint": ("EndpointName", "DescribeEndpoint", "EndpointArn"),
}
#: Operations that are waited for.
_CHANGES = {"CreateEndpoint", "DeleteEndpoint", "UpdateEndpoint", "UpdateEndpointWeightsAndCapacities"}
#: Operations that name what was created a moment ago: SageMaker may not have it everywhere yet.
_NAMING_NEW = {"CreateEndpointConfig", "CreateEndpoint", "UpdateEndpoint"}
#: Pauses until it does, in seconds.
_CONSISTENT_AFTER_S = (0.5, 1, 2, 4, 8, 16)
_QUOTA = {"ResourceLimitExceeded", "LimitExceeded", "LimitExceededException"}
#: Codes for what is not there, of services that have one.
_GONE = {"ObjectNotFoundException", "ResourceNotFound", "ResourceNotFoundException"}
_MISSING_LABEL = "does not contain required"


class Applying:
    """One run of one plan."""

    def __init__(self, endpoint: str, steps: Sequence[Step], waiting: Waiting) -> None:
        self._endpoint = endpoint
        self._steps = steps
        self._waiting = waiting
        self._aws: Aws = waiting.aws
        self._progress: Progress = waiting.progress
        self._done = 0
        #: Of the last change of the endpoint: what was there before it, and when it began.
        self._before: Described | None = None
        self._began_ms = 0

    def run(self) -> None:
        """Take all steps.

        Raises
        ------
        ToolkitError
            When a step fails; its message says what was done before and what was not.
        KeyboardInterrupt
            With the same, when the person interrupts.
        """
        try:
            for step in self._steps:
                self._take(step)
                self._done += 1
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted.{self._account()}") from None
        except RolledBack:
            raise  # says itself what is there now; what was created is kept for the next try
        except ToolkitError as error:
            raise type(error)(f"{error.message}{self._account()}") from error
        except (ClientError, BotoCoreError) as error:
            explanation = explain(error)
            if explanation is None:
                raise
            message = f"{explanation.message}{_advice(error)}{self._account()}"
            raise type(explanation)(message) from error

    def _take(self, step: Step) -> None:
        self._progress.step(step.why)
        if isinstance(step, Wait):
            self._waiting.after(step, self._before, self._began_ms)
            return
        if step.operation in _CHANGES:
            self._began_ms = int(time.time() * 1000)
            self._before = describe_endpoint(self._aws, self._endpoint)
        self._send(step)

    def _send(self, request: Request) -> None:
        for pause_s in (*_CONSISTENT_AFTER_S, None):
            try:
                _check(request, request.send(self._aws))
                return
            except ClientError as error:
                if _is_gone(request, error):
                    return
                if _exists(error) and request.operation in _CREATIONS:
                    self._insist_on_ours(request, error)
                    return
                if pause_s is None or not _is_not_yet_there(request, error):
                    raise
            time.sleep(pause_s)  # reads are eventually consistent, and nobody tells when

    def _insist_on_ours(self, request: Request, error: ClientError) -> None:
        """Go on where what was to be created is there by now and ours: another run, or a repeated call."""
        member, describe, arn = _CREATIONS[request.operation]
        name = request.parameters[member]
        described = getattr(self._aws.client("sagemaker"), xform_name(describe))(**{member: name})
        if not Reader(self._endpoint, self._aws).is_ours(described[arn]):
            raise error

    def _account(self) -> str:
        """Return what was done and what was not, to be added to a message."""
        done = [step.why for step in self._steps[: self._done] if isinstance(step, Request)]
        rest = [step.why for step in self._steps[self._done :]]
        parts = [_listed("Done", done)] if done else ["\nNothing was changed."]
        parts += [_listed("Not done, or not to the end", rest)] if rest else []
        return "".join(parts) + "\nThe same command goes on from there."


def _listed(heading: str, lines: Sequence[str]) -> str:
    return f"\n{heading}:" + "".join(f"\n  {line}" for line in lines)


def _exists(error: ClientError) -> bool:
    return code(error) == "ValidationException" and "Cannot create already existing" in text(error)


def _is_not_yet_there(request: Request, error: ClientError) -> bool:
    found = code(error) == "ValidationException" and "could not find" in text(error).lower()
    return found and request.service == "sagemaker" and request.operation in _NAMING_NEW


def _is_gone(request: Request, error: ClientError) -> bool:
    """Say whether what was to be deleted is gone already."""
    if not request.operation.startswith(("Delete", "Deregister")):
        return False
    return code(error) in _GONE or (
        code(error) == "ValidationException" and "could not find" in text(error).lower()
    )


def _check(request: Request, answer: Any) -> None:
    """Raise where an answer tells of what was not done; EC2 refuses entry by entry."""
    if refused := answer.get("Unsuccessful"):
        reasons = "; ".join(f"{entry.get('ResourceId')}: {entry['Error']['Message']}" for entry in refused)
        raise ToolkitError(f"{request.operation}: {reasons}")


def _advice(error: Exception) -> str:
    """Return what to do about errors that SageMaker itself explains too shortly."""
    if not isinstance(error, ClientError):
        return ""
    if _MISSING_LABEL in text(error):
        return (
            "\nSageMaker takes images for many models only with the label "
            "com.amazonaws.sagemaker.capabilities.multi-models=true. Images that are built FROM mmekit have "
            'it; in others write: LABEL com.amazonaws.sagemaker.capabilities.multi-models="true"'
        )
    if code(error) in _QUOTA:
        return (
            "\nThis is the account's quota in the region. Ask for more with Service Quotas, or choose "
            "another instance type or fewer instances."
        )
    return ""
