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
from mmekit_toolkit.deploy.observing import GONE, Reader, describe_endpoint, is_not_found
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
#: Deletions that no later step needs: one that is refused keeps nothing else from being deleted.
_INDEPENDENT = {"DeleteAlarms", "DeleteEndpointConfig", "DeleteModel", "DeleteVpcEndpoints"}
#: Operations that name what was created a moment ago: SageMaker may not have it everywhere yet.
_NAMING_NEW = {"CreateEndpointConfig", "CreateEndpoint", "UpdateEndpoint"}
#: Pauses until it does, in seconds.
_CONSISTENT_AFTER_S = (0.5, 1, 2, 4, 8, 16)
_QUOTA = {"ResourceLimitExceeded", "LimitExceeded", "LimitExceededException"}
_MISSING_LABEL = "does not contain required"


class Applying:
    """One run of one plan."""

    def __init__(self, endpoint: str, steps: Sequence[Step], waiting: Waiting) -> None:
        self._endpoint = endpoint
        self._steps = steps
        self._waiting = waiting
        self._aws: Aws = waiting.aws
        self._progress: Progress = waiting.progress
        self._done: list[Step] = []
        #: Of the last change of the endpoint: what was there before it, and when it began.
        self._before: Described | None = None
        self._began_ms = 0

    def run(self) -> None:
        """Take all steps.

        Raises
        ------
        ToolkitError
            When a step fails; its message says what was done and what was not.
        KeyboardInterrupt
            With the same, when the person interrupts.
        """
        refused: list[tuple[ToolkitError, Exception]] = []
        for step in self._steps:
            try:
                self._take(step)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"interrupted.{self._account(is_certain=False)}") from None
            except RolledBack as error:
                # It says itself what is there now, and what was created is kept for the next try.
                raise RolledBack(f"{error.message}{self._ended_scaling()}") from error
            except (ToolkitError, ClientError, BotoCoreError) as error:
                refused.append((_told(error), error))
                if not (isinstance(step, Request) and step.operation in _INDEPENDENT):
                    break
            else:
                self._done.append(step)
        if refused:
            message = "\n".join(dict.fromkeys(told.message for told, _ in refused))
            told, cause = refused[0]
            is_certain = not isinstance(cause, BotoCoreError)
            raise type(told)(f"{message}{self._account(is_certain=is_certain)}") from cause

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

    def _ended_scaling(self) -> str:
        """Return what to do about autoscaling that was ended for an update which then failed."""
        ended = [
            str(step.parameters["ResourceId"]).rpartition("/")[2]
            for step in self._done
            if isinstance(step, Request) and step.operation == "DeregisterScalableTarget"
        ]
        if not ended:
            return ""
        return (
            f"\nAutoscaling of {', '.join(ended)} was ended for this update, and is off now: `mmekit update` "
            "with the file of what runs begins it again."
        )

    def _account(self, *, is_certain: bool) -> str:
        """Return what was done and what was not, to be added to a message.

        Without an answer it is not certain that the last request changed nothing.
        """
        done = [step.why for step in self._done if isinstance(step, Request)]
        rest = [step.why for step in self._steps if step not in self._done]
        parts = [_listed("Done", done)] if done else ["\nNothing was changed."] if is_certain else []
        parts += [_listed("Not done, or not to the end", rest)] if rest else []
        return "".join(parts) + "\nThe same command goes on from there."


def _told(error: ToolkitError | ClientError | BotoCoreError) -> ToolkitError:
    """Return the error with an explanation and advice in place of botocore's."""
    if isinstance(error, ToolkitError):
        return error
    explanation = explain(error)
    assert explanation is not None, "all of botocore's errors are explained"
    return type(explanation)(f"{explanation.message}{_advice(error)}")


def _listed(heading: str, lines: Sequence[str]) -> str:
    return f"\n{heading}:" + "".join(f"\n  {line}" for line in lines)


def _exists(error: ClientError) -> bool:
    return code(error) == "ValidationException" and "Cannot create already existing" in text(error)


def _is_not_yet_there(request: Request, error: ClientError) -> bool:
    return is_not_found(error) and request.operation in _NAMING_NEW


def _is_gone(request: Request, error: ClientError) -> bool:
    """Say whether what was to be deleted is gone already."""
    if not request.operation.startswith(("Delete", "Deregister")):
        return False
    return code(error) in GONE or is_not_found(error)


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
