"""The routes and their answers, in the words of SageMaker and MMS: models, pages, invocations, ping."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from tests.support.gated import gated_model
from tests.support.server import Answer, Server, image_environ, plain_model, until

NO_ROUTE = "Requested resource is not found, please refer to API document."
NO_METHOD = "Requested method is not allowed, please refer to API document."

NAMES = [
    "plain",
    "0c2f8ba1d7c94b1ea8f0e2a6c6c4f1d5",
    "with/slash",
    "/leading/and/trailing/",
    "a%2Fb",
    "100%",
    "two words",
    "plus+plus",
    "ümläut-模型-🙂",
    "..",
    "dots.in.name.tar.gz",
    "?question#hash&and=more",
    'quote"and\\backslash',
    "invoke",
    "x" * 1024,
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(**image_environ()) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return plain_model(tmp_path)


@pytest.fixture
def model(server: Server, folder: Path) -> Iterator[str]:
    """The name of a loaded model; unloaded again if the test has left it."""
    name = f"model-{uuid.uuid4().hex[:8]}"
    assert server.load(name, folder).status == 200
    yield name
    server.unload(name)


def path_of(name: str) -> str:
    return "/models/" + quote(name, safe="")


def is_error(answer: Answer, status: int, kind: str) -> str:
    """Check the form of an error answer and return its message."""
    assert answer.status == status, answer.body
    assert answer.json["type"] == kind
    assert answer.headers["content-type"] == "application/json"
    return answer.message


# --- the life of a model ------------------------------------------------------------------------


def test_a_model_is_loaded_listed_described_invoked_and_unloaded(server: Server, folder: Path) -> None:
    assert server.get("/models").json == {"models": []}
    loaded = server.load("m", folder)
    assert (loaded.status, loaded.json) == (200, {"status": "Workers scaled"})
    assert server.get("/models").json == {"models": [{"modelName": "m", "modelUrl": str(folder)}]}
    assert server.get("/models/m").json["modelUrl"] == str(folder)
    assert server.invoke("m", "echo hello").text == "hello"
    unloaded = server.unload("m")
    assert (unloaded.status, unloaded.json) == (200, {"status": 'Model "m" unregistered'})
    assert server.get("/models").json == {"models": []}
    for gone in (server.get("/models/m"), server.unload("m"), server.invoke("m", "echo x")):
        assert is_error(gone, 404, "ModelNotFoundException") == "Model not found: m"


def test_a_name_is_free_again_after_its_unload(server: Server, folder: Path) -> None:
    for _ in range(3):
        assert server.load("again", folder).status == 200
        assert server.unload("again").status == 200


def test_a_name_that_is_taken_is_refused_with_409(server: Server, model: str, folder: Path) -> None:
    message = is_error(server.load(model, folder), 409, "ConflictStatusException")
    assert message == f"Model {model} is already registered."
    assert server.invoke(model, "echo still").text == "still"


def test_a_second_load_of_a_name_is_refused_while_the_first_still_runs(
    server: Server, tmp_path: Path
) -> None:
    path, gate = gated_model(tmp_path, "slow")
    first = server.later(server.load, "slow", path)
    gate.wait_for_load()
    early = server.invoke("slow", b"")
    assert early.message == "Model not found: slow (it is loading at the moment)"
    second = server.load("slow", path)
    message = is_error(second, 409, "ConflictStatusException")
    assert message == "Model slow is already registered (it is loading at the moment)."
    assert server.unload("slow").status == 404
    assert "slow" not in server.models()
    assert not first.done()
    gate.open()
    assert first.result().status == 200
    assert server.invoke("slow", "'slow'").json == "slow"
    assert server.unload("slow").status == 200


def test_two_names_may_share_one_folder(server: Server, model: str, folder: Path) -> None:
    assert server.load("twin", folder).status == 200
    assert server.unload("twin").status == 200
    assert server.invoke(model, "echo alone").text == "alone"


def test_models_can_be_loaded_by_query_string_as_mms_takes_them(server: Server, folder: Path) -> None:
    query = urlencode(
        {"model_name": "by query", "url": str(folder), "batch_size": "2", "max_batch_delay": ""}
    )
    assert server.request("POST", f"/models?{query}").json == {"status": "Workers scaled"}
    assert server.get("/models/by%20query").json["batchSize"] == 2
    assert server.unload("by%20query").status == 200


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_loads_may_carry_parameters_of_the_media_type(
    server: Server, folder: Path, content_type: str
) -> None:
    body = json.dumps({"model_name": "typed", "url": str(folder), "unknown": {"is": "ignored"}})
    answer = server.request("POST", "/models", body, {"Content-Type": content_type})
    assert answer.status == 200
    assert server.unload("typed").status == 200


def test_describe_gives_the_contracts_two_fields_and_those_of_mms(server: Server, folder: Path) -> None:
    assert server.load("d", folder, batch_size=3, max_batch_delay=7).status == 200
    described = server.get("/models/d").json
    workers = described.pop("workers")
    assert described == {
        "modelName": "d",
        "modelUrl": str(folder),
        "runtime": "python",
        "minWorkers": 1,
        "maxWorkers": 4,
        "batchSize": 3,
        "maxBatchDelay": 7,
        "loadedAtStartup": False,
    }
    assert len(workers) == 1
    assert set(workers[0]) == {"id", "startTime", "status", "gpu", "memoryUsage"}
    assert workers[0]["status"] == "READY"
    assert workers[0]["gpu"] is False
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", workers[0]["startTime"])
    assert server.unload("d").status == 200


def test_initial_workers_asks_for_copies(server: Server, folder: Path) -> None:
    assert server.load("copied", folder, initial_workers=2).status == 200
    described = server.get("/models/copied").json
    assert len(described["workers"]) == described["minWorkers"] == 2
    assert server.unload("copied").status == 200


@pytest.mark.parametrize("name", NAMES)
def test_names_are_opaque_strings(server: Server, folder: Path, name: str) -> None:
    path = path_of(name)
    assert server.load(name, folder).status == 200
    try:
        assert server.get(path).json["modelName"] == name
        assert server.models() == [name]
        answer = server.request("POST", f"{path}/invoke", "facts")
        assert answer.json["model"] == name
    finally:
        unloaded = server.request("DELETE", path)
    assert unloaded.json == {"status": f'Model "{name}" unregistered'}
    assert server.models() == []


def test_an_unencoded_slash_does_not_address_a_name_with_a_slash(server: Server, folder: Path) -> None:
    assert server.load("a/b", folder).status == 200
    assert is_error(server.get("/models/a/b"), 404, "ResourceNotFoundException") == NO_ROUTE
    assert is_error(server.invoke("a/b", "echo x"), 404, "ResourceNotFoundException") == NO_ROUTE
    assert server.unload("a%2Fb").status == 200


# --- the target-model header ---------------------------------------------------------------------


def test_the_target_model_header_never_chooses_a_model(server: Server, model: str, folder: Path) -> None:
    assert server.load("other", folder).status == 200
    lie = {"X-Amzn-SageMaker-Target-Model": "other"}
    facts = server.invoke(model, "facts", **lie).json
    assert (facts["model"], facts["target"]) == (model, "other")
    assert server.request("GET", path_of(model), headers=lie).json["modelName"] == model
    assert server.request("POST", "/invocations", "echo x", lie).status == 400
    assert is_error(server.invoke("unknown", "echo x", **lie), 404, "ModelNotFoundException")
    assert server.request("DELETE", path_of(model), headers=lie).status == 200
    assert server.models() == ["other"]
    assert server.unload("other").status == 200


def test_the_target_model_is_in_the_log_of_the_load(server: Server, folder: Path) -> None:
    body = json.dumps({"model_name": "logged", "url": str(folder)})
    headers = {"Content-Type": "application/json", "X-Amzn-SageMaker-Target-Model": "team/churn-7.tar.gz"}
    assert server.request("POST", "/models", body, headers).status == 200
    assert server.unload("logged").status == 200
    (line,) = until(lambda: [line for line in server.logged("Loaded logged") if line.get("target")])
    assert (line["model"], line["target"]) == ("logged", "team/churn-7.tar.gz")


# --- invocations -----------------------------------------------------------------------------------


def test_the_handler_sees_body_content_type_and_custom_attributes(server: Server, model: str) -> None:
    headers = {
        "X-Amzn-SageMaker-Custom-Attributes": "trace=7,user=ü".encode().decode("latin-1"),
        "Accept": "text/csv;q=0.5, */*;q=0.1",
        "X-Unknown": "kept",
    }
    seen = server.invoke(model, "headers", "text/weird; a=b", **headers).json
    assert seen["content-type"] == "text/weird; a=b"
    assert seen["accept"] == headers["Accept"]
    assert seen["x-amzn-sagemaker-custom-attributes"] == headers["X-Amzn-SageMaker-Custom-Attributes"]
    assert seen["x-unknown"] == "kept"


def test_headers_of_the_handler_come_back(server: Server, model: str) -> None:
    answer = server.invoke(model, "header X-Amzn-SageMaker-Custom-Attributes=seen=yes")
    assert answer.headers["x-amzn-sagemaker-custom-attributes"] == "seen=yes"
    assert server.invoke(model, "header Content-Type=image/png").headers["content-type"] == "image/png"


def test_status_and_phrase_of_the_handler_come_back(server: Server, model: str) -> None:
    assert server.invoke(model, "status 202").status == 202
    answer = server.invoke(model, "status 418")
    assert (answer.status, answer.text) == (418, "with a status")


@pytest.mark.parametrize(
    "name", ["Content-Length", "Connection", "Transfer-Encoding", "X-Request-Id", "Date"]
)
def test_headers_that_are_the_servers_cannot_be_set_by_a_handler(
    server: Server, model: str, name: str
) -> None:
    """As in MMS they are overwritten without a word: handlers that set them exist."""
    answer = server.invoke(model, f"header {name}=7")
    assert (answer.status, answer.text) == (200, "with a header")
    assert answer.headers.get(name.lower()) != "7"


def test_an_answer_without_a_content_type_of_the_handlers_has_none(server: Server, model: str) -> None:
    assert "content-type" not in server.invoke(model, "echo x").headers


def test_bodies_pass_as_they_are(server: Server, model: str) -> None:
    body = b"echo \x00\r\n0\r\n\r\n" + "grüße".encode() * 1000
    assert server.invoke(model, body).body == body[5:]


def test_any_method_but_options_invokes(server: Server, model: str) -> None:
    """MMS does not check the method either."""
    path = f"{path_of(model)}/invoke"
    assert server.request("PUT", path, "echo put").text == "put"
    assert server.request("OPTIONS", path).json["openapi"] == "3.0.1"


def test_invocations_serves_the_only_model_or_the_one_that_is_named(
    server: Server, model: str, folder: Path
) -> None:
    assert server.request("POST", "/invocations", "facts").json["model"] == model
    assert server.load("second one", folder).status == 200
    nameless = server.request("POST", "/invocations", "facts")
    assert is_error(nameless, 400, "BadRequestException") == "Parameter model_name is required."
    named = server.request("POST", "/invocations?model_name=second+one", "facts")
    assert named.json["model"] == "second one"
    unknown = server.request("POST", "/invocations?model_name=third", "facts")
    assert is_error(unknown, 404, "ModelNotFoundException") == "Model not found: third"
    assert server.unload("second%20one").status == 200


# --- answers in general ------------------------------------------------------------------------------


def test_every_answer_has_a_request_id_of_its_own(server: Server, model: str) -> None:
    answers = [
        server.get("/ping"),
        server.get("/models"),
        server.get("/nothing"),
        server.invoke(model, "echo x", X_Request_Id="chosen-by-the-client"),
        server.invoke(model, "raise oops"),
        server.load(model, "/nowhere"),
        server.unload("nothing"),
    ]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    for text in ids:
        assert str(uuid.UUID(text)) == text
        assert uuid.UUID(text).version == 4


def test_json_is_printed_as_mms_prints_it(server: Server) -> None:
    answer = server.get("/nothing")
    assert answer.body == (
        b'{\n  "code": 404,\n  "type": "ResourceNotFoundException",\n'
        b'  "message": "Requested resource is not found, please refer to API document."\n}\n'
    )
    assert server.get("/ping").body == b'{\n  "status": "Healthy"\n}\n'
    assert server.get("/models").headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/MODELS", 404),
        ("GET", "/models/a/b", 404),
        ("POST", "/models/a/invoke/more", 404),
        ("POST", "/invocations/more", 404),
        ("PUT", "/models", 405),
        ("DELETE", "/models", 405),
        ("OPTIONS", "/models", 405),
        ("PATCH", "/models/a", 405),
        ("POST", "/models/a", 405),
        ("GET", "/", 405),
        ("GET", "/ping/", 200),
        ("GET", "/models/", 200),
        ("GET", "/ping?a=b", 200),
    ],
)
def test_unknown_routes_are_404_and_wrong_methods_405(
    server: Server, method: str, path: str, status: int
) -> None:
    answer = server.request(method, path)
    assert answer.status == status
    if status == 404:
        assert is_error(answer, 404, "ResourceNotFoundException") == NO_ROUTE
    if status == 405:
        assert is_error(answer, 405, "MethodNotAllowedException") == NO_METHOD


def test_head_answers_as_get_without_the_body(server: Server, model: str) -> None:
    head, get = server.request("HEAD", "/ping"), server.get("/ping")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    described = server.request("HEAD", path_of(model))
    assert described.body == b""
    assert server.request("HEAD", "/models").status == 405  # as in MMS


def test_ping_answers_at_once_while_all_workers_are_busy(server: Server, model: str, tmp_path: Path) -> None:
    enough = tmp_path / "enough"
    busy = [server.later(server.invoke, model, f"spin {enough}") for _ in range(8)]
    until(lambda: server.waiting(model))
    seconds = sorted(server.get("/ping").seconds for _ in range(50))
    for path in ("/ping", "/models", path_of(model)):
        assert min(server.get(path).seconds for _ in range(3)) < 0.5
    assert not any(call.done() for call in busy)
    enough.touch()
    assert seconds[25] < 0.05
    assert all(call.result().status == 200 for call in busy)


# --- pages -------------------------------------------------------------------------------------------


class Pages:
    """A client of the list that follows tokens, as SageMaker does."""

    def __init__(self, server: Server, **parameters: str) -> None:
        self.server = server
        self.parameters = parameters
        self.sizes: list[int] = []

    def names(self, between: dict[int, list[tuple[str, str]]] | None = None) -> list[str]:
        """Return all names; ``between`` gives loads and unloads to make after a page."""
        found: list[str] = []
        token = None
        while True:
            query = {**self.parameters, **({"next_page_token": token} if token else {})}
            answer = self.server.get("/models?" + urlencode(query))
            assert answer.status == 200, answer.body
            page = answer.json
            assert set(page) <= {"models", "nextPageToken"}
            self.sizes.append(len(page["models"]))
            found += [model["modelName"] for model in page["models"]]
            for verb, name in (between or {}).get(len(self.sizes), []):
                _change(self.server, verb, name)
            token = page.get("nextPageToken")
            if token is None:
                return found
            assert isinstance(token, str)


def _change(server: Server, verb: str, name: str) -> None:
    if verb == "load":
        folder = server.environ["TEST_MODEL"]
        assert server.load(name, folder).status == 200
    else:
        assert server.unload(name).status == 200


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = plain_model(tmp_path_factory.mktemp("listed"))
    with Server(**image_environ(TEST_MODEL=str(folder))) as server:
        yield server


@pytest.fixture
def count(listed: Server) -> Callable[[int], list[str]]:
    """Call it with how many models there shall be; they are named m000 … in order."""

    def load(number: int) -> list[str]:
        names = [f"m{i:03d}" for i in range(number)]
        have = set(Pages(listed).names())
        calls = [listed.later(_change, listed, "unload", name) for name in have - set(names)]
        calls += [listed.later(_change, listed, "load", name) for name in set(names) - have]
        for call in calls:
            call.result()
        return names

    return load


@pytest.mark.parametrize(
    ("number", "sizes"), [(0, [0]), (1, [1]), (100, [100]), (101, [100, 1]), (250, [100, 100, 50])]
)
def test_pages_hold_a_hundred_and_the_last_has_no_token(
    listed: Server, count: Callable[[int], list[str]], number: int, sizes: list[int]
) -> None:
    names = count(number)
    pages = Pages(listed)
    assert pages.names() == names
    assert pages.sizes == sizes


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [
        ("7", [7, 3]),
        ("5", [5, 5]),
        ("10", [10]),
        ("100", [10]),
        ("101", [10]),
        ("0", [10]),
        ("-1", [10]),
        ("abc", [10]),
        ("٣", [10]),
        ("", [10]),
        ("1e1", [10]),
        ("9" * 5000, [10]),
    ],
)
def test_a_limit_outside_1_to_100_means_100(
    listed: Server, count: Callable[[int], list[str]], limit: str, sizes: list[int]
) -> None:
    names = count(10)
    pages = Pages(listed, limit=limit)
    assert pages.names() == names
    assert pages.sizes == sizes


def test_the_first_of_equal_parameters_counts(listed: Server, count: Callable[[int], list[str]]) -> None:
    count(10)
    assert len(listed.get("/models?limit=3&limit=4").json["models"]) == 3


def test_loads_and_unloads_between_pages_lose_and_repeat_nothing(
    listed: Server, count: Callable[[int], list[str]]
) -> None:
    names = count(12)
    between = {
        1: [("unload", "m001"), ("unload", "m003"), ("load", "a-new-one-before"), ("unload", "m004")],
        2: [("load", "m000-again"), ("load", "z-new-one-after"), ("unload", "m011")],
    }
    found = Pages(listed, limit="4").names(between)
    assert found == sorted(found)
    assert len(set(found)) == len(found)
    steady = {"m000", "m002", *(f"m{i:03d}" for i in range(5, 11))}
    assert steady <= set(found)
    assert "m011" not in found
    assert "z-new-one-after" in found
    assert "a-new-one-before" not in found
    assert names[0] in found


def test_a_token_of_a_page_whose_last_model_has_gone_goes_on_behind_it(
    listed: Server, count: Callable[[int], list[str]]
) -> None:
    count(10)
    first = listed.get("/models?limit=3").json
    assert listed.unload("m002").status == 200
    token = first["nextPageToken"]
    rest = listed.get(f"/models?next_page_token={quote(token)}").json["models"]
    assert [model["modelName"] for model in rest] == [f"m{i:03d}" for i in range(3, 10)]


def test_whole_numbers_are_taken_as_tokens_of_mms(listed: Server, count: Callable[[int], list[str]]) -> None:
    names = count(10)
    page = listed.get("/models?next_page_token=4&limit=3").json
    assert [model["modelName"] for model in page["models"]] == names[4:7]
    assert listed.get("/models?next_page_token=0").json["models"][0]["modelName"] == "m000"
    for beyond in ("10", "99", "9" * 5000):
        assert listed.get(f"/models?next_page_token={beyond}").json == {"models": []}


@pytest.mark.parametrize("token", ["-1", "abc", "after-%%%", "after-a", "after-gICA", "4.5"])
def test_a_token_that_no_page_gave_is_refused(listed: Server, token: str) -> None:
    answer = listed.get("/models?next_page_token=" + quote(token, safe=""))
    message = is_error(answer, 400, "BadRequestException")
    assert message == (
        f"next_page_token {token!r} is not one: expected the nextPageToken of the page before."
    )
