"""``mmekit iam``: prints least-privilege policies of an endpoint's three parties."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from mmekit_toolkit.aws.clients import Aws, aws_options
from mmekit_toolkit.command import Group
from mmekit_toolkit.deploy import reference
from mmekit_toolkit.iam import caller as callers
from mmekit_toolkit.iam import deployer as deployers
from mmekit_toolkit.iam import execution_role as roles
from mmekit_toolkit.iam import facts
from mmekit_toolkit.iam.facts import Facts
from mmekit_toolkit.iam.statements import document, trust

#: IAM and AWS STS quotas: "Size of managed policies"; white space does not count.
_MANAGED_POLICY_CHARACTERS = 6144


@click.group(cls=Group)
def iam() -> None:
    """Print the policies that an endpoint needs: the least that works.

    ENDPOINT is the YAML file of an endpoint, or the name of one that is there. Nothing is changed: give what
    is printed to `aws iam create-policy`, or to whoever may. AWS is asked only for what the file leaves out.

    A bucket with a KMS key of your own is not in the file: its key must allow kms:Decrypt to the execution
    role, and kms:Decrypt and kms:GenerateDataKey to who uploads.
    """


@iam.command(
    "execution-role",
    epilog="""\b
Examples:
  mmekit iam execution-role endpoint.yaml
  mmekit iam execution-role endpoint.yaml --trust
""",
)
@click.argument("endpoint")
@click.option("--trust", "trusted", is_flag=True, help="Print the policy that lets SageMaker take the role.")
@aws_options
def execution_role(endpoint: str, trusted: bool, aws: Aws) -> None:
    """What SageMaker may do in your name: fetch archives, pull the image, log, publish metrics."""
    found = _facts(endpoint, aws)
    _show(trust(roles.SERVICE, found.place.account) if trusted else document(roles.statements(found)))


@iam.command(
    epilog="""\b
Examples:
  mmekit iam deployer endpoint.yaml
  mmekit iam deployer churn
"""
)
@click.argument("endpoint")
@aws_options
def deployer(endpoint: str, aws: Aws) -> None:
    """What mmekit's own commands call: build, push, deploy, update, delete, models, status, logs.

    Autoscaling, PrivateLink and keys are in it only where the file has them. Calling models is the caller's.
    """
    _show(document(deployers.statements(_facts(endpoint, aws))))


@iam.command(
    epilog="""\b
Examples:
  mmekit iam caller churn
  mmekit iam caller endpoint.yaml --tenant tenant_a
"""
)
@click.argument("endpoint")
@click.option(
    "--tenant",
    "tenants",
    multiple=True,
    metavar="FOLDER",
    help="Only models in this folder of the prefix. Repeat it for one policy each, by their names.",
)
@aws_options
def caller(endpoint: str, tenants: tuple[str, ...], aws: Aws) -> None:
    """What calls models by their TargetModel: all of them, or a tenant's."""
    found = _facts(endpoint, aws)
    if len(tenants) > 1:
        _show({tenant: document([callers.statement(found, tenant)]) for tenant in tenants})
        return
    _show(document([callers.statement(found, *tenants)]))


def _facts(endpoint: str, aws: Aws) -> Facts:
    named = reference.resolve(endpoint)
    return facts.find(aws.in_region(named.region), named)


def _show(policy: Mapping[str, Any]) -> None:
    click.echo(json.dumps(policy, indent=2))
    if len(json.dumps(policy, separators=(",", ":"))) > _MANAGED_POLICY_CHARACTERS:
        click.echo(
            f"This is longer than a managed policy may be ({_MANAGED_POLICY_CHARACTERS} characters without "
            "spaces): put it into the role itself (`aws iam put-role-policy`), or split it.",
            err=True,
        )
