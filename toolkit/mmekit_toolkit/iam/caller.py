"""What calls an endpoint's models: one action on one endpoint, a tenant's own models where that is wanted."""

from __future__ import annotations

from mmekit_toolkit.errors import ToolkitError
from mmekit_toolkit.iam.facts import Facts
from mmekit_toolkit.iam.statements import Statement

#: In a condition these stand for other characters.
_WILDCARDS = frozenset("*?$")


def statement(facts: Facts, tenant: str | None = None) -> Statement:
    """Return what calls the endpoint; with ``tenant`` only models in that folder of the prefix.

    Raises ToolkitError for a tenant whose name would match others', too.
    """
    if tenant is None:
        return Statement("CallModels", ["sagemaker:InvokeEndpoint"], facts.endpoint_arns())
    folder = tenant.rstrip("/")
    if not folder or _WILDCARDS & set(folder):
        raise ToolkitError(
            f"the tenant {tenant!r} would match others, too. Expected the name of a folder below the models' "
            "prefix, such as tenant_a."
        )
    return Statement(
        "CallModelsOfTheTenant",
        ["sagemaker:InvokeEndpoint"],
        facts.endpoint_arns(),
        {"StringLike": {"sagemaker:TargetModel": [f"{folder}/*"]}},
    )
