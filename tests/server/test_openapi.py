"""The OpenAPI documents: valid, and true to what the server does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.server import Server, image_environ, plain_model

openapi = pytest.importorskip("openapi_spec_validator")

INFERENCE = {
    "/ping",
    "/predictions/{model_name}",
    "/models/{model_name}/invoke",
    "/invocations",
    "/{model_name}/predict",
    "/execution-parameters",
}
MANAGEMENT = {"/models", "/models/{model_name}"}
ALL = {"/", "/api-description", "/metrics"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two connectors and a model m."""
    environ = image_environ(
        MMEKIT_INFERENCE_ADDRESS="http://127.0.0.1:0",
        MMEKIT_MANAGEMENT_ADDRESS="http://127.0.0.2:0",
        SAGEMAKER_MAX_REQUEST_SIZE="12345",
        SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS="120",
        SAGEMAKER_MODEL_SERVER_WORKERS="2",
    )
    with Server(**environ) as server:
        assert server.load("m", plain_model(tmp_path_factory.mktemp("openapi"))).status == 200
        yield server


def described(server: Server, on: str = "inference", method: str = "OPTIONS", path: str = "/") -> Any:
    answer = server.request(method, path, on=on)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    openapi.validate(answer.json)
    assert answer.json["openapi"] == "3.0.1"
    return answer.json


def test_each_connector_describes_its_own_routes(server: Server) -> None:
    assert set(described(server, "inference")["paths"]) == INFERENCE | ALL
    assert set(described(server, "management")["paths"]) == MANAGEMENT | ALL


def test_one_port_describes_all_routes() -> None:
    with Server() as server:
        assert set(described(server)["paths"]) == INFERENCE | MANAGEMENT | ALL


@pytest.mark.parametrize("on", ["inference", "management"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_api_description_is_the_same_document_for_any_method(server: Server, on: str, method: str) -> None:
    assert described(server, on, method, "/api-description") == described(server, on)


@pytest.mark.parametrize(
    "path",
    ["/predictions/m", "/predictions/m/x", "/models/m/invoke", "/m/predict", "/invocations?model_name=m"],
)
def test_options_on_a_models_routes_describes_that_model(server: Server, path: str) -> None:
    document = described(server, path=path)
    assert set(document["paths"]) == {"/predictions/m"}
    assert "m" in document["info"]["title"]


def test_a_model_that_is_not_there_is_not_described(server: Server) -> None:
    answer = server.request("OPTIONS", "/predictions/none")
    assert answer.status == 404
    assert answer.message.startswith("Model not found: none")


@pytest.mark.parametrize("name", ["a/b", "{braces}", "100%", "ünï code", 'quote"d'])
def test_a_model_of_any_name_has_a_valid_document_with_the_path_that_reaches_it(
    server: Server, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert server.load(name, plain_model(tmp_path_factory.mktemp("named"))).status == 200
    (path,) = described(server, path=f"/predictions/{quote(name, safe='')}")["paths"]
    assert server.request("POST", path, "echo there").text == "there"


def test_every_route_that_is_described_is_there_and_answers_as_described(server: Server) -> None:
    called = 0
    for on in ("inference", "management"):
        for path, operations in described(server, on)["paths"].items():
            for method, operation in operations.items():
                if (path, method) in (("/models/{model_name}", "delete"), ("/models", "post")):
                    continue
                target = path.replace("{model_name}", "m")
                if path == "/invocations":
                    target += "?model_name=m"
                body = b"echo x" if method == "post" else None
                answer = server.request(method.upper(), target, body, on=on)
                assert str(answer.status) in operation["responses"] or answer.status == 200, (method, path)
                assert answer.status in (200, 202), (method, path, answer.body)
                called += 1
    assert called > 15


def test_json_answers_have_the_fields_that_are_described(server: Server) -> None:
    for on, path in (
        ("inference", "/ping"),
        ("inference", "/execution-parameters"),
        ("management", "/models"),
        ("management", "/models/{model_name}"),
    ):
        document = described(server, on)
        content = document["paths"][path]["get"]["responses"]["200"]["content"]
        schema = document["components"]["schemas"][
            content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        ]
        answer = server.request("GET", path.replace("{model_name}", "m"), on=on).json
        assert set(schema["required"]) <= set(answer) <= set(schema["properties"]), path


def test_defaults_and_limits_are_this_servers(server: Server) -> None:
    register = described(server, "management")["paths"]["/models"]["post"]
    in_query = {each["name"]: each["schema"] for each in register["parameters"]}
    in_json = register["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert set(in_query) == set(in_json)
    assert in_query["initial_workers"]["default"] == 2
    assert in_query["response_timeout"]["default"] == 2, "minutes"
    assert in_json["response_timeout"]["default"] == 120, "seconds"
    invoke = described(server)["paths"]["/models/{model_name}/invoke"]["post"]
    assert "12345 bytes" in invoke["responses"]["413"]["description"]


def test_every_parameter_of_a_registration_that_is_described_is_taken(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    register = described(server, "management")["paths"]["/models"]["post"]
    values = {
        "url": str(plain_model(tmp_path_factory.mktemp("all"))),
        "model_name": "all",
        "handler": "image_handler:handle",
        "runtime": "python3",
        "batch_size": "1",
        "max_batch_delay": "0",
        "initial_workers": "1",
        "synchronous": "true",
        "response_timeout": "1",
        "preload_model": "false",
    }
    assert set(values) == {each["name"] for each in register["parameters"]}
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in values.items())
    answer = server.request("POST", f"/models?{query}", on="management")
    assert answer.status == 200, answer.body
    server.unload("all")
