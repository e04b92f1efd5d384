"""A request to AWS as a value: it can be shown, checked, printed for the AWS CLI, and sent."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.deploy import shapes
from mmekit_toolkit.errors import BadDescription

#: boto3's name of a service → the AWS CLI's, where they differ.
_CLI_NAMES = {"s3": "s3api"}


@dataclass(frozen=True)
class Request:
    """One call of an AWS operation, with ``parameters`` as boto3 takes them."""

    #: boto3's name: ``sagemaker``, ``application-autoscaling``.
    service: str
    #: As AWS spells it: ``CreateModel``.
    operation: str
    parameters: Mapping[str, Any]
    #: What it does, for people: ``create the model churn-1a2b3c4d``.
    why: str

    def send(self, aws: Aws) -> Any:
        """Make the call and return its answer. Raises botocore's errors."""
        from botocore import xform_name

        return getattr(aws.client(self.service), xform_name(self.operation))(**self.parameters)

    def command(self, aws: Aws) -> str:
        """Return the AWS CLI's command for the same call, ready for a shell."""
        from botocore import xform_name

        words = [*_cli(self.service), xform_name(self.operation, "-"), *_options(aws)]
        words += ["--cli-input-json", json.dumps(self.parameters, ensure_ascii=False)]
        return shlex.join(words)

    def as_json(self) -> dict[str, Any]:
        """Return the request for programs: service, operation, parameters, why."""
        return {
            "service": self.service,
            "operation": self.operation,
            "parameters": self.parameters,
            "why": self.why,
        }


@dataclass(frozen=True)
class Wait:
    """Waiting between requests, by the name that botocore and the AWS CLI have for it."""

    #: botocore's waiter of SageMaker: ``endpoint_in_service`` or ``endpoint_deleted``.
    waiter: str
    endpoint: str
    why: str
    #: Configuration that the endpoint runs then; another one means that the change was rolled back.
    config: str | None = None
    #: Variant → instances, and → weight, that are wanted then, where they were changed in place.
    counts: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    def command(self, aws: Aws) -> str:
        """Return the AWS CLI's command that waits for the same."""
        words = [*_cli("sagemaker"), "wait", self.waiter.replace("_", "-"), *_options(aws)]
        return shlex.join([*words, "--endpoint-name", self.endpoint])

    def as_json(self) -> dict[str, Any]:
        """Return the waiting for programs: service, waiter, parameters, why."""
        return {
            "service": "sagemaker",
            "waiter": self.waiter,
            "parameters": {"EndpointName": self.endpoint},
            "why": self.why,
        }


#: What a plan is made of, in order.
Step = Request | Wait


def check(requests: Iterable[Request]) -> None:
    """Check requests against botocore's service models, before the first of them is sent.

    Raises
    ------
    BadDescription
        When a value is not one that AWS takes; it names all of them.
    """
    from botocore.validate import ParamValidator

    errors = []
    for request in requests:
        shape = shapes.operation(request.service, request.operation).input_shape
        report = ParamValidator().validate(request.parameters, shape)
        found = [report.generate_report()] if report.has_errors() else []
        if not found:
            found = [
                f"{shapes.dotted(path)}: {text}"
                for path, text in shapes.violations(shape, request.parameters)
            ]
        errors += [f"{request.operation}: {text}" for text in found]
    if errors:
        raise BadDescription("AWS would refuse this:\n  " + "\n  ".join(errors))


def as_commands(steps: Sequence[Step], aws: Aws) -> str:
    """Return steps as lines for a shell, each under a comment that says what it does."""
    if not steps:
        return "# nothing to do"
    return "\n".join(f"# {step.why}\n{step.command(aws)}" for step in steps)


def as_json(steps: Iterable[Step]) -> str:
    """Return steps as a JSON list."""
    return json.dumps([step.as_json() for step in steps], indent=2, ensure_ascii=False)


def _cli(service: str) -> list[str]:
    return ["aws", _CLI_NAMES.get(service, service)]


def _options(aws: Aws) -> list[str]:
    options = ["--region", aws.region or aws.region_name]
    if aws.profile:
        options += ["--profile", aws.profile]
    if aws.endpoint_url:
        options += ["--endpoint-url", aws.endpoint_url]
    return options
