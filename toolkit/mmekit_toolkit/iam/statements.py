"""IAM policies as values: statements of an identity-based policy, and the document they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: The one version of the grammar with all of today's features (AWS: "IAM JSON policy elements: Version").
_VERSION = "2012-10-17"


@dataclass(frozen=True)
class Statement:
    """One ``Allow``; ``sid`` says what for."""

    sid: str
    actions: Sequence[str]
    resources: Sequence[str] = ("*",)
    #: Operator → key → values.
    conditions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the statement in IAM's grammar."""
        statement: dict[str, Any] = {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": list(self.actions),
            "Resource": list(self.resources),
        }
        if self.conditions:
            statement["Condition"] = {operator: dict(keys) for operator, keys in self.conditions.items()}
        return statement


def document(statements: Iterable[Statement]) -> dict[str, Any]:
    """Return the policy of these statements."""
    return {"Version": _VERSION, "Statement": [statement.as_json() for statement in statements]}


def trust(service: str, account: str) -> dict[str, Any]:
    """Return the policy that lets a service take a role, on behalf of this account only.

    The condition keeps others from having the service use the role for them (AWS: "Cross-service confused
    deputy prevention").
    """
    return {
        "Version": _VERSION,
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": service},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"aws:SourceAccount": account}},
            }
        ],
    }
