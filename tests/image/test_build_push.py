"""``mmekit build`` and ``mmekit push`` with a real engine, a real registry, and moto's ECR."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mmekit_toolkit.images import docker_build
from tests.image.containers import containers, docker, poll
from tests.image.registries import (
    EXPIRED,
    GONE,
    Proxy,
    Registry,
    Rule,
    http_answer,
    times,
    writes_manifest,
)
from tests.toolkit.command_template import template
from tests.toolkit.moto_server import ACCOUNT, REGION, MotoServer

MMEKIT = Path(sysconfig.get_path("scripts")) / "mmekit"
BASE = "python:3.11-slim-bookworm"
LABEL = "com.amazonaws.sagemaker.capabilities.multi-models"
LABELS = f"LABEL {LABEL}=true com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true"
PASSWORD = f"{ACCOUNT}-auth-token"
Ended = subprocess.CompletedProcess[str]

#: The smallest server that answers what SageMaker asks first.
SERVER = """\
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"models": []}'
        self.send_response(MODELS if self.path == "/models" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
assert sys.argv[1:] == ["serve"], sys.argv
http.server.HTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
GOOD = f'FROM {BASE}\n{LABELS}\nEXPOSE 8080\nCOPY server.py /\nENTRYPOINT ["python", "/server.py"]\n'


@pytest.fixture(scope="module", autouse=True)
def tidy(engine: None) -> Iterator[None]:
    """Remove what the tests named; layers that they share with other images stay."""
    _tidy_up()  # after an earlier run that was killed
    yield
    _tidy_up()


def _tidy_up() -> None:
    ours = images("mmekit-test-toolkit")
    if left := {container for name in ours for container in containers(f"ancestor={name}")}:
        docker("rm", "--force", "--volumes", *left)
    if ours:
        docker("rmi", "--force", *ours)
    docker("image", "prune", "--force", "--filter", "label=mmekit-test-toolkit")


def images(repository: str) -> set[str]:
    """Return the names of the engine's images whose repository has this in it: by digest where no tag is."""
    listed = docker("images", "--digests", "--format", "{{.Repository}} {{.Tag}} {{.Digest}}")
    return {
        f"{name}@{digest}" if tag == "<none>" else f"{name}:{tag}"
        for name, tag, digest in map(str.split, listed.splitlines())
        if repository in name
    }


@pytest.fixture(scope="module")
def aws() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


@pytest.fixture(scope="module")
def registry(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry"), PASSWORD) as registry:
        yield registry
    # A push leaves its name on the engine, as docker's own does.
    for name in images(f"{registry.host}/"):
        docker("rmi", name)


@pytest.fixture
def environ(aws: MotoServer, waiting: object, tmp_path: Path) -> dict[str, str]:
    """A machine whose docker has no credentials; AWS is moto's. ``waiting`` begins with the first push."""
    aws.reset()
    return {**aws.environ, "DOCKER_CONFIG": str(tmp_path / "docker")}


def run(*arguments: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 110) -> Ended:
    environ = os.environ if env is None else env
    code, out, err = template().run([*map(str, arguments)], environ, b"", timeout_s)
    return Ended(arguments, code, out.decode(), err.decode())


def folder(path: Path, dockerfile: str, models_status: int = 200) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "Dockerfile").write_text(dockerfile)
    (path / "server.py").write_text(f"MODELS = {models_status}\n{SERVER}")
    return path


def commands_with(text: str) -> list[bytes]:
    """Return the command lines of this machine's processes that have this text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            found.append(path.read_bytes())
    return [command for command in found if text.encode() in command]


def tiny(
    tmp_path: Path, name: str, dockerfile: str = f"FROM scratch\n{LABELS}\n", size: int = 200_000
) -> str:
    """Build an image of one file of random bytes, without mmekit; return its name."""
    (tmp_path / "content").write_bytes(os.urandom(size))
    (tmp_path / "Dockerfile").write_text(
        f'{dockerfile}LABEL mmekit-test-toolkit=1\nCOPY content /\nENTRYPOINT ["/content"]\n'
    )
    docker("build", "--tag", f"mmekit-test-toolkit-{name}:1.0", str(tmp_path))
    return f"mmekit-test-toolkit-{name}:1.0"


# --- build ---------------------------------------------------------------------------------------


@pytest.fixture(params=["buildx", "legacy"])
def builder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of docker's builders: BuildKit by way of buildx, where docker has that, and the one before it."""
    if request.param == "legacy":
        monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    elif docker_build.find_builder({}).buildx is None:
        pytest.skip("docker has no buildx here")


@pytest.mark.usefixtures("builder")
def test_an_image_on_top_of_mmekits_own_passes_every_check(image: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\nLABEL org.opencontainers.image.title=churn\n")
    name = "mmekit-test-toolkit-churn:1.0"
    done = run("build", tmp_path, "--tag", name)
    assert done.returncode == 0, done.stderr
    first, *checks = done.stdout.splitlines()
    assert re.fullmatch(rf"{re.escape(name)}  [0-9a-f]{{12}}  linux/amd64  [\d,]+ MB", first)
    assert {line.split()[0] for line in checks} == {"ok"}
    assert "/ping is 200" in checks[-1]
    assert re.search(rf"FROM \S*{re.escape(image)}", done.stderr), "docker's own output is passed on"
    assert not containers(f"ancestor={name}")


@pytest.mark.usefixtures("builder")
def test_json_has_image_and_checks_for_programs(tmp_path: Path) -> None:
    name = "mmekit-test-toolkit-json:1.0"
    done = run("build", folder(tmp_path, GOOD), "--tag", name, "--no-start", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["id"] == docker("image", "inspect", "--format", "{{.Id}}", name)
    assert (answer["image"], answer["platform"]) == (name, "linux/amd64")
    assert {check["name"] for check in answer["checks"]} >= {"multi-model label", "entry point", "user"}
    assert "start" not in {check["name"] for check in answer["checks"]}


@pytest.mark.usefixtures("builder")
def test_what_follows_two_dashes_is_dockers(tmp_path: Path) -> None:
    name = "mmekit-test-toolkit-more:1.0"
    text = f"FROM {BASE} AS base\nARG TEAM=none\nLABEL team=$TEAM\nFROM base AS other\nLABEL other=1\n"
    done = run(
        *("build", folder(tmp_path, text), "--tag", name, "--no-start", "--target", "base"),
        *("--build-arg", "TEAM=risk", "--", "--label", "more=yes"),
    )
    assert done.returncode == 3, done.stderr
    labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", name))
    assert labels == {"team": "risk", "more": "yes"}


FAULTS = {
    "label": (GOOD.replace(LABELS, ""), 200, ["fault", f"LABEL {LABEL}=true", "warning", "pipelines"]),
    "shell-form": (
        GOOD.replace('["python", "/server.py"]', "python /server.py serve"),
        200,
        ["fault", "is in shell form", 'ENTRYPOINT ["python"]'],
    ),
    "ends": (
        GOOD.replace('["python", "/server.py"]', '["python", "-c", "print(1+41); exit(9)"]'),
        200,
        ["fault", "ended with code 9", "| 42"],
    ),
    "no-program": (
        GOOD.replace('["python", "/server.py"]', '["no-such-program"]'),
        200,
        ["fault", "the container does not start", "no-such-program"],
    ),
    "no-list": (GOOD, 404, ["fault", "GET /models with no model loaded: expected 200, got 404"]),
}


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_what_to_do_and_nothing_keeps_running(name: str, tmp_path: Path) -> None:
    dockerfile, models_status, expected = FAULTS[name]
    tag = f"mmekit-test-toolkit-{name}:1.0"
    done = run("build", folder(tmp_path, dockerfile, models_status), "--tag", tag)
    assert done.returncode == 3, done.stderr
    for text in expected:
        assert text in done.stdout
    assert f"{tag} is built, but SageMaker could not host it" in done.stderr
    assert not containers(f"ancestor={tag}")


@pytest.mark.usefixtures("builder")
def test_what_works_but_is_not_as_sagemaker_wants_it_is_a_warning(tmp_path: Path) -> None:
    text = GOOD.replace("EXPOSE 8080", "USER 1000").replace(LABELS, f"LABEL {LABEL}=true")
    done = run("build", folder(tmp_path, text), "--tag", "mmekit-test-toolkit-warned:1.0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("  warning  ") == 3
    assert "  ok       starts" in done.stdout


@pytest.mark.usefixtures("builder")
def test_a_failed_build_names_the_step_and_keeps_dockers_output(tmp_path: Path) -> None:
    text = f"FROM {BASE}\nLABEL mmekit-test-toolkit=1\nRUN echo all is lost; exit 7\n"
    done = run("build", folder(tmp_path, text), "--tag", "mmekit-test-toolkit-failed:1.0")
    assert done.returncode == 1
    assert done.stdout == ""
    *streamed, last = done.stderr.splitlines()
    assert any(line.endswith("all is lost") for line in streamed)
    # BuildKit counts no labels.
    assert re.search("at step (2/2|3/3): RUN echo all is lost; exit 7", last)
    assert re.search("returned a non-zero code: 7$|did not complete successfully: exit code: 7$", last)


@pytest.mark.usefixtures("builder")
def test_a_base_that_is_nowhere_says_how_to_make_it(tmp_path: Path) -> None:
    text = "FROM localhost:1/no/such:base\n"
    done = run("build", folder(tmp_path, text), "--tag", "mmekit-test-toolkit-failed:1.0")
    assert done.returncode == 1
    steps = "1/1: FROM|internal: load metadata for"
    assert re.search(f"at step ({steps}) localhost:1/no/such:base", done.stderr)


def test_without_a_dockerfile_five_lines_of_one_are_shown(tmp_path: Path) -> None:
    done = run("build", tmp_path, "--tag", "churn:1.0")
    assert done.returncode == 7
    assert f"there is no {tmp_path}/Dockerfile" in done.stderr
    assert "FROM mmekit:cpu" in done.stderr
    assert run("build", tmp_path / "nowhere", "--tag", "churn:1.0").returncode == 7
    assert run("build", "-", "--tag", "churn:1.0").returncode == 2


@pytest.mark.usefixtures("builder")
def test_ctrl_c_ends_docker_too(tmp_path: Path) -> None:
    step = f"sleep 300; : {tmp_path}"  # of no other run
    text = f"FROM {BASE}\nRUN echo begun; {step}\n"
    process = subprocess.Popen(
        [MMEKIT, "build", folder(tmp_path, text), "--tag", "mmekit-test-toolkit-slow:1.0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    for line in process.stdout:
        if line.endswith("begun\n"):
            break
    process.send_signal(signal.SIGINT)  # to mmekit alone, as `kill` does
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "the build was interrupted" in out
    poll(lambda: not commands_with(step), 30, "the step's process to end")


@pytest.mark.parametrize("arguments", [("build", "--tag", "churn:1.0"), ("push", "churn:1.0")])
def test_without_an_engine_it_is_said_what_to_start(arguments: tuple[str, ...], tmp_path: Path) -> None:
    env = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    more = [folder(tmp_path, GOOD)] if arguments[0] == "build" else []
    done = run(*arguments, *more, env=env)
    assert done.returncode == 6
    assert "no container engine answers" in done.stderr
    assert "DOCKER_HOST" in done.stderr
    assert "Traceback" not in done.stderr


# --- push ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def any_image(engine: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny(tmp_path_factory.mktemp("any"), "any")


def test_a_push_makes_the_repository_and_prints_the_digest_that_the_registry_has(
    aws: MotoServer, registry: Registry, environ: dict[str, str], tmp_path: Path
) -> None:
    name = tiny(tmp_path, "first")
    done = run("push", name, "--repository", "team/first", "--registry", registry.host, env=environ)
    assert done.returncode == 0, done.stderr
    digest = registry.digest("team/first", "1.0")
    assert done.stdout == f"{registry.host}/team/first@{digest}\n"
    assert "created the repository team/first" in done.stderr
    assert "pushed (0.2 MB)" in done.stderr
    client = aws.client("ecr")
    (made,) = client.describe_repositories(repositoryNames=["team/first"])["repositories"]
    client.close()
    assert made["imageTagMutability"] == "IMMUTABLE"
    assert made["imageScanningConfiguration"]["scanOnPush"] is True
    assert PASSWORD not in done.stderr
    assert not list(tmp_path.glob("docker/**/*")), "docker's configuration has no credentials of this push"


def test_a_second_push_does_nothing_and_prints_the_same(
    registry: Registry, environ: dict[str, str], any_image: str
) -> None:
    # The variable stands for the option.
    environ["MMEKIT_REGISTRY"] = registry.host
    first = run("push", any_image, env=environ)
    assert first.returncode == 0, first.stderr
    second = run("push", any_image, env=environ)
    assert second.returncode == 0, second.stderr
    assert second.stdout == first.stdout
    assert "nothing to do" in second.stderr
    answer = json.loads(run("push", any_image, "--json", env=environ).stdout)
    assert (answer["pushed"], answer["image"]) == (False, first.stdout.strip())
    assert answer["media_type"] == "application/vnd.docker.distribution.manifest.v2+json"


def test_a_tag_that_is_another_image_is_not_moved(
    registry: Registry, environ: dict[str, str], tmp_path: Path
) -> None:
    environ["MMEKIT_REGISTRY"] = registry.host
    assert run("push", tiny(tmp_path, "taken"), env=environ).returncode == 0
    before = registry.digest("mmekit-test-toolkit-taken", "1.0")
    changed = tiny(tmp_path, "taken")
    for arguments in (["push", changed], ["push", changed, "--dry-run"]):
        done = run(*arguments, env=environ)
        assert done.returncode == 1
        assert "is another image already" in done.stderr
        assert "--tag" in done.stderr
    assert registry.digest("mmekit-test-toolkit-taken", "1.0") == before
    done = run("push", changed, "--tag", "1.1", env=environ)
    assert done.returncode == 0, done.stderr
    assert registry.digest("mmekit-test-toolkit-taken", "1.1") != before


def test_a_dry_run_prints_commands_and_changes_nothing(
    aws: MotoServer, registry: Registry, environ: dict[str, str], any_image: str
) -> None:
    done = run("push", any_image, "--repository", "dry", "--dry-run", env=environ)
    assert done.returncode == 0, done.stderr
    address = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/dry:1.0"
    assert "aws ecr create-repository" in done.stdout
    assert '"imageTagMutability": "IMMUTABLE"' in done.stdout
    assert done.stdout.splitlines()[-2:] == [f"docker tag {any_image} {address}", f"docker push {address}"]
    client = aws.client("ecr")
    assert client.describe_repositories()["repositories"] == []
    client.close()
    environ["MMEKIT_REGISTRY"] = registry.host
    assert run("push", any_image, "--repository", "dry", env=environ).returncode == 0
    again = ("push", any_image, "--repository", "dry", "--dry-run")
    assert "nothing to push" in run(*again, env=environ).stdout
    assert json.loads(run(*again, "--json", env=environ).stdout) == {"requests": [], "commands": []}


def test_an_image_that_sagemaker_would_refuse_is_pushed_by_force_alone(
    registry: Registry, environ: dict[str, str], tmp_path: Path
) -> None:
    name = tiny(tmp_path, "bare", "FROM scratch\n")
    environ["MMEKIT_REGISTRY"] = registry.host
    done = run("push", name, env=environ)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"LABEL {LABEL}=true" in done.stderr
    done = run("push", name, "--force", env=environ)
    assert done.returncode == 0, done.stderr
    assert registry.digest("mmekit-test-toolkit-bare", "1.0") in done.stdout


def test_what_is_not_there_is_said_with_what_is(environ: dict[str, str], any_image: str) -> None:
    done = run("push", "mmekit-test-toolkit-ayn:1.0", env=environ)
    assert done.returncode == 7
    assert any_image in done.stderr
    assert "mmekit build --tag mmekit-test-toolkit-ayn:1.0" in done.stderr


def test_names_that_ecr_does_not_take_are_refused_before_anything_is_made(
    aws: MotoServer, environ: dict[str, str], any_image: str
) -> None:
    done = run("push", any_image, "--repository", "Team/Named", env=environ)
    assert done.returncode == 1
    assert "lower-case" in done.stderr
    elsewhere = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/churn"
    done = run("push", any_image, "--repository", elsewhere, "--region", REGION, env=environ)
    assert done.returncode == 1
    assert "in eu-west-1, but --region is us-east-1" in done.stderr
    client = aws.client("ecr")
    assert client.describe_repositories()["repositories"] == []
    client.close()


def test_without_credentials_a_push_ends_with_what_to_do(environ: dict[str, str], any_image: str) -> None:
    del environ["AWS_ACCESS_KEY_ID"]
    done = run("push", any_image, env=environ)
    assert done.returncode == 5
    assert "aws sso login" in done.stderr


def test_another_registry_needs_no_aws_and_takes_dockers_own_credentials(
    registry: Registry, tmp_path: Path, any_image: str
) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    env |= {"DOCKER_CONFIG": str(tmp_path / "docker"), "AWS_EC2_METADATA_DISABLED": "true"}
    repository = f"{registry.host}/private/churn"
    done = run("push", any_image, "--repository", repository, env=env)
    assert done.returncode == 5
    assert f"docker login {registry.host}" in done.stderr
    subprocess.run(
        ["docker", "login", "--username", "AWS", "--password-stdin", registry.host],
        input=PASSWORD,
        env=env,
        text=True,
        check=True,
        capture_output=True,
        timeout=60,
    )
    done = run("push", any_image, "--repository", repository, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{repository}@{registry.digest('private/churn', '1.0')}\n"
    # Its tags may be moved, as with docker push; that is said.
    done = run("push", tiny(tmp_path, "private"), "--repository", repository, env=env)
    assert done.returncode == 0, done.stderr
    assert "the tag 1.0 moves" in done.stderr


# --- registries that fail ------------------------------------------------------------------------


@pytest.fixture
def push_through(registry: Registry, environ: dict[str, str], tmp_path: Path) -> Callable[[Rule, str], Ended]:
    def push(rule: Rule, name: str) -> Ended:
        image = tiny(tmp_path, name)
        with Proxy(registry.port, rule) as proxy:
            return run("push", image, "--registry", proxy.host, env=environ)

    return push


@pytest.fixture(scope="module")
def waiting(
    registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[Ended]]]:
    """Pushes that wait for a registry, by their names; they do so beside the other tests, a minute in all."""

    def in_layer(sent: int, _: bytes) -> bool:
        return sent > 300_000

    def at_the_end(_: int, data: bytes) -> bool:
        return writes_manifest(data)

    rules = {
        "cut": times(1, in_layer),
        "late": times(2, at_the_end),
        "lost": times(1000, at_the_end),
        "gone": times(1, in_layer, GONE),
    }
    folder = tmp_path_factory.mktemp("waiting")
    with MotoServer() as aws, ThreadPoolExecutor(len(rules)) as pool:
        environ = {**aws.environ, "DOCKER_CONFIG": str(folder / "docker")}

        def push(name: str) -> Ended:
            (folder / name).mkdir()
            image = tiny(folder / name, name, size=1_000_000)
            with Proxy(registry.port, rules[name]) as proxy:
                return run("push", image, "--registry", proxy.host, env=environ, timeout_s=300)

        yield {name: pool.submit(push, name) for name in rules}


def test_a_connection_that_breaks_in_a_layer_is_taken_up_again(waiting: Any, registry: Registry) -> None:
    done = waiting["cut"].result()
    assert done.returncode == 0, done.stderr
    assert "the registry was lost; retrying in 5 s" in done.stderr
    assert registry.digest("mmekit-test-toolkit-cut", "1.0") in done.stdout


def test_a_connection_that_breaks_at_the_end_is_taken_up_again_without_sending_layers_twice(
    waiting: Any, registry: Registry
) -> None:
    done = waiting["late"].result()
    assert done.returncode == 0, done.stderr
    assert "attempt 2 of 4 in" in done.stderr
    assert "attempt 3 of 4 in" in done.stderr
    assert done.stderr.count("pushed (") == 1
    assert registry.digest("mmekit-test-toolkit-late", "1.0") in done.stdout


def test_a_registry_that_stays_away_ends_the_push_with_what_to_do(waiting: Any) -> None:
    done = waiting["lost"].result()
    assert (done.returncode, done.stdout) == (1, "")
    assert "The registry was lost 4 times in a row" in done.stderr
    assert "layers that have arrived are not sent twice" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_registry_that_is_gone_in_the_middle_ends_the_push(waiting: Any) -> None:
    """The engine itself tries the layer five times, for 50 s, in the first attempt alone."""
    done = waiting["gone"].result()
    assert (done.returncode, done.stdout) == (1, "")
    assert "connection refused" in done.stderr
    assert "The registry was lost 4 times in a row" in done.stderr


def test_an_expired_token_is_renewed_once(push_through: Any, aws: MotoServer, registry: Registry) -> None:
    expired = times(1, lambda _, data: writes_manifest(data), http_answer("403 Forbidden", EXPIRED))
    done = push_through(expired, "expired")
    assert done.returncode == 0, done.stderr
    assert "asking for a new one" in done.stderr
    assert registry.digest("mmekit-test-toolkit-expired", "1.0") in done.stdout


def test_a_token_that_the_registry_never_takes_is_an_error_of_credentials(push_through: Any) -> None:
    refuse = times(1000, lambda sent, _: sent == 0, http_answer("403 Forbidden", EXPIRED))
    done = push_through(refuse, "refused")
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.count("asking for a new one") == 1
    assert "does not accept the token that ECR gave a moment ago" in done.stderr


def test_ctrl_c_in_a_push_says_what_was_not_written(
    registry: Registry, environ: dict[str, str], tmp_path: Path
) -> None:
    image = tiny(tmp_path, "interrupted", size=1_000_000)
    reached, leave = threading.Event(), threading.Event()

    def hold(sent: int, _: bytes) -> bytes:
        if sent > 300_000:
            reached.set()
            leave.wait(60)
        return b""

    with Proxy(registry.port, hold) as proxy:
        process = subprocess.Popen(
            [MMEKIT, "push", image, "--registry", proxy.host],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert reached.wait(60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        leave.set()
    assert (process.returncode, out) == (130, "")
    assert "mmekit-test-toolkit-interrupted:1.0 was not written" in err
    assert "goes on from there" in err
