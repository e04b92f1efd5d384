"""The schema as editors and people get it: whole, and the same in the documentation."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from mmekit_toolkit.deploy import schema
from mmekit_toolkit.deploy.description import Description

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "endpoint-yaml.md"


def test_the_documentation_has_the_schema() -> None:
    assert DOCUMENT.read_text() == schema.as_markdown() + "\n", (
        "mmekit deploy --schema --markdown > docs/endpoint-yaml.md"
    )


def test_every_name_has_a_meaning() -> None:
    told = json.loads(schema.as_json_schema())
    assert told["$ref"] == "#/$defs/Description"
    for part in told["$defs"].values():
        assert part["additionalProperties"] is False
        assert [name for name, field in part["properties"].items() if not field.get("description")] == []


def test_editors_offer_the_instance_types_and_limits_of_aws() -> None:
    parts = json.loads(schema.as_json_schema())["$defs"]
    assert "ml.m5.xlarge" in parts["VariantDescription"]["properties"]["instance_type"]["enum"]
    timeout = parts["VariantDescription"]["properties"]["startup_timeout_s"]
    assert {"type": "integer", "minimum": 60, "maximum": 3600} in timeout["anyOf"]
    assert parts["Description"]["properties"]["name"]["maxLength"] == 54


def test_every_name_is_in_the_tables() -> None:
    tables = schema.as_markdown()
    for part in msgspec.json.schema(Description)["$defs"].values():
        assert [name for name in part["properties"] if f"\n| `{name}` |" not in tables] == []
