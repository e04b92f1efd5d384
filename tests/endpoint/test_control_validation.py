"""Requests against botocore's service model: AWS's texts, and that nothing that violates it gets through."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape
from hypothesis import given, settings
from hypothesis import strategies as st

from mmekit_endpoint.api.control.operations import OFFERED
from mmekit_endpoint.api.control.patterns import compiled
from mmekit_endpoint.api.control.validation import SerializationException, decode, validate
from mmekit_endpoint.errors import EndpointError, ValidationException
from tests.endpoint.control import ControlPlane, control_plane, multi_model, variant

MODEL = ServiceModel(Loader().load_service_model("sagemaker", "service-2"), "sagemaker")
CONFIG = {"EndpointConfigName": "c", "ProductionVariants": [variant("m")]}


def check(operation: str, members: dict[str, Any]) -> dict[str, Any]:
    shape: Any = MODEL.operation_model(operation).input_shape
    return validate(shape, members)


def error(operation: str, members: dict[str, Any]) -> str:
    with pytest.raises(ValidationException) as caught:
        check(operation, members)
    return caught.value.message


def test_a_missing_member_is_null() -> None:
    assert error("DescribeModel", {}) == (
        "1 validation error detected: Value null at 'modelName' failed to satisfy constraint: "
        "Member must not be null"
    )


def test_null_is_a_missing_member() -> None:
    assert check("ListModels", {"NameContains": None}) == {}
    assert "Value null at 'modelName'" in error("DescribeModel", {"ModelName": None})


def test_lengths() -> None:
    text = "1 validation error detected: Value '{}' at 'modelName' failed to satisfy constraint: {}"
    assert error("DescribeModel", {"ModelName": "a" * 64}) == text.format(
        "a" * 64, "Member must have length less than or equal to 63"
    )
    assert "at 'productionVariants' failed to satisfy constraint: Member must have length greater" in error(
        "CreateEndpointConfig", {**CONFIG, "ProductionVariants": []}
    )


def test_patterns_match_in_full() -> None:
    for name in ["a_b", "a b", "a\n", "-a", "a-", ""]:
        assert error("DescribeModel", {"ModelName": name}).endswith(
            "Member must satisfy regular expression pattern: [a-zA-Z0-9]([\\-a-zA-Z0-9]*[a-zA-Z0-9])?"
        )


def test_enums_name_what_is_allowed() -> None:
    message = error("ListModels", {"SortOrder": "Up"})
    assert message == (
        "1 validation error detected: Value 'Up' at 'sortOrder' failed to satisfy constraint: "
        "Member must satisfy enum value set: [Ascending, Descending]"
    )


def test_paths_go_into_lists_and_structures() -> None:
    config = {**CONFIG, "ProductionVariants": [variant("m", InstanceType="ml.none", InitialInstanceCount=0)]}
    message = error("CreateEndpointConfig", config)
    assert message.startswith("2 validation errors detected: Value ")
    assert "Value 'ml.none' at 'productionVariants.1.member.instanceType' failed to satisfy" in message
    assert (
        "Value '0' at 'productionVariants.1.member.initialInstanceCount' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1" in message
    )


def test_maps_have_constraints_on_keys_and_values() -> None:
    members = {"ModelName": "m", "PrimaryContainer": multi_model(Environment={"1": "x", "A": "y" * 1025})}
    message = error("CreateModel", members)
    assert "Map keys must satisfy constraint: [Member must satisfy regular expression pattern" in message
    assert "Map value must satisfy constraint: [Member must have length less than or equal" in message
    assert "Map value must satisfy constraint: [Member must not be null]" in error(
        "CreateModel", {"ModelName": "m", "PrimaryContainer": {"Environment": {"A": None}}}
    )


def test_unknown_members_are_refused_with_those_that_are_known() -> None:
    assert error("DescribeModel", {"ModelName": "m", "Modelname": "m"}) == (
        "1 validation error detected: Value 'm' at 'modelname' failed to satisfy constraint: "
        "Member must be one of DescribeModelInput's: [ModelName]"
    )


def test_long_values_and_many_errors_are_cut() -> None:
    message = error("DescribeModel", {"ModelName": "a" * 100_000, **{f"X{i}": "y" * 999 for i in range(99)}})
    assert message.startswith("100 validation errors detected")
    assert message.endswith("and 80 more")
    assert len(message) < 10_000


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"ModelName": 5}, "NUMBER_VALUE 5 at 'modelName' can not be converted to a String"),
        ({"ModelName": ["a"]}, "Start of list at 'modelName' can not be converted to a String"),
        (
            {"ModelName": {"a": 1}},
            "Start of structure or map at 'modelName' can not be converted to a String",
        ),
        ({"ModelName": True}, "BOOLEAN_VALUE at 'modelName' can not be converted to a String"),
        ({"Tags": "x"}, "STRING_VALUE at 'tags' can not be converted to a list"),
        ({"Tags": ["x"]}, "STRING_VALUE at 'tags.1.member' can not be converted to a structure"),
        ({"EnableNetworkIsolation": "true"}, "STRING_VALUE at 'enableNetworkIsolation' can not be"),
    ],
)
def test_wrong_types_are_named(members: dict[str, Any], text: str) -> None:
    with pytest.raises(SerializationException) as caught:
        check("CreateModel", members)
    assert text in caught.value.message


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 10**300, 1.5, True, "1"])
def test_integers_have_32_bits(value: object) -> None:
    with pytest.raises(SerializationException, match="can not be converted to an Integer"):
        check("ListModels", {"MaxResults": value})


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"1",
        b'"x"',
        b"null",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": ' + b"1" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(SerializationException, match="The body of the request"):
        decode(body)


def test_an_empty_body_is_an_empty_object() -> None:
    assert decode(b"") == {}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("Größe", True),
        ("日本", True),
        ("a b\u2003c", True),
        ("x+y=z@/:.-_", True),
        ("a*b", False),
        ("a\n", False),
    ],
)
def test_unicode_categories_of_patterns_are_translated(text: str, matches: bool) -> None:
    pattern = compiled("([\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*)")
    assert (pattern.fullmatch(text) is not None) == matches


def patterns(shape: Shape, seen: set[str]) -> Iterator[str]:
    if shape.name in seen:
        return
    seen.add(shape.name)
    if "pattern" in shape.metadata:
        yield shape.metadata["pattern"]
    inner: Any = shape
    if shape.type_name == "structure":
        for member in inner.members.values():
            yield from patterns(member, seen)
    elif shape.type_name == "list":
        yield from patterns(inner.member, seen)
    elif shape.type_name == "map":
        yield from patterns(inner.key, seen)
        yield from patterns(inner.value, seen)


@pytest.mark.parametrize("operation", OFFERED)
def test_every_pattern_of_an_operation_can_be_compiled(operation: str) -> None:
    shape: Any = MODEL.operation_model(operation).input_shape
    for pattern in patterns(shape, set()):
        assert isinstance(compiled(pattern), re.Pattern)


# --- properties: values that fit and values that do not, wherever the model has a place for them

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


def fitting(shape: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values of the right types, mostly within the constraints; members missing or junk now and then."""
    metadata = shape.metadata
    match shape.type_name:
        case "structure":
            members = {
                name: (fitting(member, depth + 1) if depth < 6 else st.just({})) | JUNK
                for name, member in shape.members.items()
            }
            return st.fixed_dictionaries({}, optional=members)
        case "list":
            return st.lists(fitting(shape.member, depth + 1), max_size=2)
        case "map":
            return st.dictionaries(st.text(max_size=3), fitting(shape.value, depth + 1), max_size=2)
        case "string" if "enum" in metadata:
            return st.sampled_from(metadata["enum"])
        case "string" if "pattern" in metadata:
            return st.from_regex(compiled(metadata["pattern"]), fullmatch=True)
        case "boolean":
            return st.booleans()
        case "string":
            return st.text(max_size=9)
        case _:
            return st.integers(0, 10_000) | st.floats(allow_nan=False)


def conforms(shape: Any, value: Any) -> bool:
    """Say whether a value fits the model: written a second time, the slow and plain way."""
    metadata = shape.metadata
    low, high = metadata.get("min", -(10**400)), metadata.get("max", 10**400)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match shape.type_name:
        case "structure":
            given_members = (
                {n: v for n, v in value.items() if v is not None} if isinstance(value, dict) else {}
            )
            return (
                isinstance(value, dict)
                and all(name in given_members for name in shape.required_members)
                and all(
                    n in shape.members and conforms(shape.members[n], v) for n, v in given_members.items()
                )
            )
        case "list":
            if not isinstance(value, list) or not low <= len(value) <= high:
                return False
            return all(element is not None and conforms(shape.member, element) for element in value)
        case "map":
            return (
                isinstance(value, dict)
                and low <= len(value) <= high
                and all(conforms(shape.key, k) and conforms(shape.value, v) for k, v in value.items())
            )
        case "string":
            pattern = compiled(metadata.get("pattern", r"[\s\S]*"))
            return (
                isinstance(value, str)
                and low <= len(value) <= high
                and pattern.fullmatch(value) is not None
                and value in metadata.get("enum", [value])
            )
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return number and isinstance(value, int) and abs(value) < 2**31 and low <= value <= high
        case _:
            return number and abs(value) < 1e300 and low <= value <= high


@pytest.mark.parametrize("operation", OFFERED)
def test_what_violates_the_model_is_refused_and_all_else_is_not(operation: str) -> None:
    shape: Any = MODEL.operation_model(operation).input_shape

    @settings(max_examples=25)
    @given(fitting(shape))
    def holds(members: dict[str, Any]) -> None:
        body = json.dumps(members).encode()
        if conforms(shape, members):
            validate(shape, decode(body))
        else:
            with pytest.raises(EndpointError) as caught:
                validate(shape, decode(body))
            assert caught.value.status == 400

    holds()


# --- over HTTP


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("state")) as started:
        yield started


@settings(max_examples=60)
@given(operation=st.sampled_from(list(OFFERED)), members=JUNK)
def test_junk_is_answered_with_400(plane: ControlPlane, operation: str, members: Any) -> None:
    answer = plane.send(json.dumps(members).encode(), f"SageMaker.{operation}")
    lists = operation.startswith("List") and operation != "ListTags"
    assert answer.status == 400 or (lists and answer.status == 200)
    if answer.status == 400:
        assert answer.error[0] in ("ValidationException", "SerializationException")
    assert answer.headers["x-amzn-RequestId"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"ModelName": "m", "X": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"ModelName": "m", "X": ' + b'{"a":' * 400 + b"1" + b"}" * 400 + b"}",
        b'{"ModelName": "m", "Tags": ' + b"9" * 900 + b"}",
        b'{"CreationTimeAfter": 1e308, "MaxResults": -0}',
        b"[" * 500_000,
        b"\x00",
    ],
)
def test_hostile_bodies_are_answered_with_400(plane: ControlPlane, body: bytes) -> None:
    for operation in ("CreateModel", "ListModels"):
        answer = plane.send(body, f"SageMaker.{operation}")
        assert answer.status == 400
        assert answer.error[0] in ("ValidationException", "SerializationException")


def test_a_body_that_is_too_large_is_refused(plane: ControlPlane) -> None:
    answer = plane.send(b" " * (1024 * 1024 + 1))
    assert answer.status == 413
    assert answer.error[0] == "RequestEntityTooLargeException"


def test_errors_went_to_no_log(plane: ControlPlane, tmp_path: Path) -> None:
    """Runs last here: no request of these tests was an internal failure."""
    assert plane.log.read_text() == ""
