"""SageMaker's multi-model contract over a real container: read-only, limited, as an ordinary user.

Sections of the contract: start and stop, health, the model API, memory (AWS: mms-container-apis,
your-algorithms-inference-code).
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tests.image.conftest import Start
from tests.image.containers import MIB, Answer, Container, docker, poll
from tests.image.models import ModelFolder

Models = dict[str, ModelFolder]

#: As strict as an orchestrator may be: no capability, no writable file, no name for the user.
STRICT = (
    "--read-only",
    "--user=12345:12345",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--cpus=2",
    "--pids-limit=200",
    "--env=SAGEMAKER_MULTI_MODEL=true",
)


@pytest.fixture(scope="module")
def server(start_shared: Start, mount: str) -> Container:
    return start_shared(*STRICT, "--memory=1500m", f"--volume={mount}")


@pytest.fixture
def loaded(server: Container, models: Models) -> Iterator[Container]:
    """The server with the three frameworks' models loaded."""
    for name in ("xgboost", "sklearn", "pytorch"):
        answer = server.load(name, models[name].url)
        assert answer.status == 200, answer.body
    yield server
    for name in server.models():
        server.unload(name)


# --- start -----------------------------------------------------------------------------------------


def test_an_empty_server_is_healthy_and_lists_nothing(server: Container) -> None:
    assert server.request("GET", "/ping").status == 200
    listing = server.request("GET", "/models")
    assert (listing.status, listing.json["models"]) == (200, [])


def test_process_1_is_the_server(server: Container) -> None:
    arguments = server.python("print(open('/proc/1/cmdline').read().replace(chr(0), ' '))").split()
    assert arguments[-1] == "serve"
    assert arguments[-2].endswith("/mmekit")
    assert "python" in arguments[0]


def test_serve_is_also_what_runs_without_arguments(start: Start) -> None:
    container = start("--env=SAGEMAKER_MULTI_MODEL=true", command=())
    assert container.request("GET", "/ping").status == 200


def test_the_port_is_the_platforms_choice(start: Start) -> None:
    container = start("--env=SAGEMAKER_MULTI_MODEL=true", "--env=SAGEMAKER_BIND_TO_PORT=9090", port=9090)
    assert container.request("GET", "/models").json["models"] == []


# --- the model API -------------------------------------------------------------------------------


def test_loaded_models_are_listed_with_their_url(loaded: Container, models: Models) -> None:
    expected = {name: models[name].url for name in ("xgboost", "sklearn", "pytorch")}
    listing = loaded.request("GET", "/models").json["models"]
    assert {model["modelName"]: model["modelUrl"] for model in listing} == expected
    described = loaded.request("GET", "/models/xgboost")
    assert described.status == 200
    first = described.json[0] if isinstance(described.json, list) else described.json
    assert (first["modelName"], first["modelUrl"]) == ("xgboost", models["xgboost"].url)


@pytest.mark.parametrize("framework", ["xgboost", "sklearn", "pytorch"])
@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
def test_csv_is_answered_as_the_framework_itself_predicts(
    loaded: Container, models: Models, framework: str, accept: str
) -> None:
    model = models[framework]
    answer = loaded.invoke(framework, model.csv, "text/csv", accept)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].split(";")[0] == accept
    assert answer.numbers() == pytest.approx(model.expected, rel=1e-5)


@pytest.mark.parametrize("framework", ["xgboost", "sklearn", "pytorch"])
def test_json_is_answered_as_the_framework_itself_predicts(
    loaded: Container, models: Models, framework: str
) -> None:
    model = models[framework]
    body = json.dumps({"instances": [model.row, model.row]})
    answer = loaded.invoke(framework, body, "application/json")
    assert answer.status == 200, answer.body
    assert answer.numbers() == pytest.approx(model.expected * 2, rel=1e-5)


def test_a_name_is_loaded_once(loaded: Container, models: Models) -> None:
    again = loaded.load("xgboost", models["xgboost"].url)
    assert again.status == 409
    assert again.json["code"] == 409
    assert "xgboost" in again.json["message"]


def test_what_is_not_loaded_is_404(server: Container) -> None:
    for answer in (
        server.invoke("nobody", "1"),
        server.unload("nobody"),
        server.request("GET", "/models/nobody"),
    ):
        assert answer.status == 404
        assert "nobody" in answer.json["message"]


def test_an_unloaded_model_is_gone_and_can_be_loaded_again(loaded: Container, models: Models) -> None:
    assert loaded.unload("sklearn").status == 200
    assert "sklearn" not in loaded.models()
    assert loaded.invoke("sklearn", models["sklearn"].csv).status == 404
    assert loaded.load("sklearn", models["sklearn"].url).status == 200
    assert loaded.invoke("sklearn", models["sklearn"].csv).status == 200


def test_a_failed_load_is_never_listed_and_says_why(server: Container) -> None:
    answer = server.load("missing", "/opt/ml/models/missing/model")
    assert 400 <= answer.status < 600
    assert answer.status != 507
    assert "/opt/ml/models/missing/model" in answer.json["message"]
    assert "missing" not in server.models()


def test_nothing_is_written_in_the_container(start: Start, models: Models, mount: str) -> None:
    """Without --read-only: a server that may write still does not."""
    container = start("--env=SAGEMAKER_MULTI_MODEL=true", f"--volume={mount}")
    for name in ("xgboost", "pid"):
        assert container.load(name, models[name].url).status == 200
        assert container.invoke(name, models[name].csv).status == 200
    changed = docker("diff", container.id).splitlines()
    # The engine makes the mount point and docker's own files.
    files = [line for line in changed if not line.endswith(("/opt", "/opt/ml", "/opt/ml/models", "/tmp"))]
    assert files == []


# --- one model, as for a plain endpoint -----------------------------------------------------------


def test_a_single_model_is_served_at_invocations(start: Start, models: Models) -> None:
    container = start(
        "--read-only", "--user=1000:1000", f"--volume={models['xgboost'].path}:/opt/ml/model:ro"
    )
    headers = {"Content-Type": "text/csv", "Accept": "text/csv"}
    answer = container.request("POST", "/invocations", models["xgboost"].csv, headers)
    assert answer.status == 200, answer.body
    assert answer.numbers() == pytest.approx(models["xgboost"].expected, rel=1e-5)


# --- memory ------------------------------------------------------------------------------------------


def test_a_full_container_answers_507_and_goes_on_when_models_are_unloaded(
    start: Start, models: Models, mount: str
) -> None:
    container = start(*STRICT, "--memory=1g", "--memory-swap=1g", f"--volume={mount}")
    big = models["big"]
    names: list[str] = []
    refused: Answer | None = None
    for number in range(60):
        answer = container.load(f"big-{number}", big.url)
        if answer.status == 507:
            refused = answer
            break
        assert answer.status == 200, answer.body
        names.append(f"big-{number}")
    assert refused is not None, "60 models of 40 MB fitted in 1 GiB"
    assert len(names) >= 3
    assert refused.json["code"] == 507
    assert any(unit in refused.json["message"] for unit in ("MiB", "bytes", "GiB")), refused.json

    assert container.models() == sorted(names)
    for name in (names[0], names[-1]):
        assert container.invoke(name, big.csv).numbers() == pytest.approx(big.expected)

    for name in names[:3]:
        assert container.unload(name).status == 200
    assert container.load("again", big.url).status == 200
    assert container.invoke("again", big.csv).numbers() == pytest.approx(big.expected)
    assert container.state("OOMKilled") is False
    assert container.kernel_kills() == 0


def test_memory_is_free_again_when_unload_answers(server: Container, models: Models) -> None:
    before = server.anonymous_bytes()
    assert server.load("big", models["big"].url).status == 200
    assert server.invoke("big", models["big"].csv).status == 200
    held = server.anonymous_bytes() - before
    assert held > 35 * MIB
    assert server.unload("big").status == 200
    left = server.anonymous_bytes() - before
    assert left < 0.3 * held, f"{held // MIB} MiB held, {left // MIB} MiB left"


# --- processes ------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_and_others_do_not_notice(loaded: Container, models: Models) -> None:
    assert loaded.load("pid", models["pid"].url).status == 200
    first = int(loaded.invoke("pid", "1,2", accept="text/plain").body)
    loaded.python(f"import os; os.kill({first}, 9)")
    assert loaded.invoke("xgboost", models["xgboost"].csv).status == 200

    def recovered() -> int | None:
        answer = loaded.invoke("pid", "1,2", accept="text/plain")
        return int(answer.body) if answer.status == 200 else None

    assert poll(recovered, 20, "the model's new worker") != first


def test_killed_shared_workers_are_replaced_too(loaded: Container, models: Models) -> None:
    """Every process but the server dies at once: template, spare and workers."""
    loaded.python("import os; os.kill(-1, 9)")  # the same user, and never process 1
    for name in ("xgboost", "sklearn", "pytorch"):
        answer = poll(
            lambda name=name: (a := loaded.invoke(name, models[name].csv)).status == 200 and a,
            30,
            f"an answer of {name}",
        )
        assert answer.numbers() == pytest.approx(models[name].expected, rel=1e-5)


def test_process_1_reaps_orphans(loaded: Container, models: Models) -> None:
    assert loaded.load("orphans", models["orphans"].url).status == 200
    assert loaded.invoke("orphans", "1", accept="text/plain").status == 200
    program = """
import glob
states = []
for path in glob.glob('/proc/[0-9]*/stat'):
    try:
        text = open(path).read()
    except OSError:
        continue
    name, rest = text[text.index('(') + 1:text.rindex(')')], text[text.rindex(')') + 2:]
    states.append((name, rest[0]))
print(sum(s == 'Z' or n == 'sleep' for n, s in states))
"""
    poll(lambda: loaded.python(program) == "0", 15, "process 1 to reap five orphans")


# --- stop --------------------------------------------------------------------------------------------


def test_sigterm_answers_what_is_in_flight_and_exits_0(start: Start, models: Models, mount: str) -> None:
    container = start(*STRICT, "--memory=1500m", f"--volume={mount}")
    assert container.load("slow", models["slow"].url).status == 200
    answers: list[Answer] = []
    caller = threading.Thread(target=lambda: answers.append(container.invoke("slow", "1,2")))
    caller.start()
    running = b'mmekit_running_calls{model="slow"} 1.0'

    def in_the_model() -> bool:
        """Or through it already, where the machine has stalled for the three seconds that it takes."""
        return bool(answers) or running in container.request("GET", "/metrics").body

    poll(in_the_model, 20, "the request being in the model")
    began = time.monotonic()
    docker("kill", "--signal=TERM", container.id)
    assert container.wait_exit(30) == 0
    took_s = time.monotonic() - began
    caller.join(10)
    assert [answer.status for answer in answers] == [200]
    assert answers[0].numbers() == [4.5]
    assert took_s < 15, f"{took_s:.1f} s after SIGTERM"


def test_docker_stop_ends_an_idle_server_at_once(start: Start) -> None:
    container = start("--env=SAGEMAKER_MULTI_MODEL=true")
    began = time.monotonic()
    docker("stop", "--time=30", container.id)
    assert container.state("ExitCode") == 0
    assert time.monotonic() - began < 10


def test_a_wrong_setting_ends_the_start_with_its_name(image: str) -> None:
    done = subprocess.run(
        ["docker", "run", "--rm", "--env=SAGEMAKER_BIND_TO_PORT=many", image, "serve"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "SAGEMAKER_BIND_TO_PORT" in done.stdout + done.stderr
