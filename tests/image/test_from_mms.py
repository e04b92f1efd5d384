"""docs/from-mms.md, its commands as they stand: containers of Multi Model Server move to mmekit, and back."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.conftest import ROOT, Start
from tests.image.containers import Container, docker, poll
from tests.image.models import ModelFolder
from tests.support.mms import free_port

GUIDE = ROOT / "docs" / "from-mms.md"
EXAMPLES = ROOT / "examples" / "from-mms"

BYO = "AWS's bring-your-own sample"
SERVICE = "A sagemaker-inference handler service"
CONFIG = "MMS with config.properties"
BACK = "Going back"


def commands(section: str) -> list[str]:
    """The shell blocks of a section, in order."""
    text = GUIDE.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```bash\n(.*?)```", text, re.DOTALL)


class Reader:
    """Somebody who follows the guide in a copy of an example; names, ports and images are the test's own."""

    def __init__(self, folder: Path, name: str, image: str, mms_image: str = "") -> None:
        self.folder = folder
        #: What the guide calls image and container, and what the test calls them.
        self._name = name
        self.name = f"mmekit-test-{name}"
        build = os.environ.get("MMEKIT_DOCKER_BUILD", "docker build")
        self._replacements = {
            "mmekit:cpu-mms": mms_image,
            "mmekit:cpu": image,
            "docker build": build,
            name: self.name,
        }
        for port in (8080, 8081):
            own = free_port()  # of those that no client gets while the image is built
            self._replacements[f"--publish {port}:{port}"] = f"--publish 127.0.0.1:{own}:{port}"
            self._replacements[f"localhost:{port}"] = f"127.0.0.1:{own}"

    def run(self, block: str) -> str:
        """Run a block; every command in it has to succeed. Returns what it printed on stdout."""
        pattern = "|".join(map(re.escape, sorted(self._replacements, key=len, reverse=True)))
        script = re.sub(pattern, lambda found: self._replacements[found[0]], block)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        log = "" if done.returncode == 0 else docker("logs", "--tail=60", self.name, check=False)
        assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}\n{log}"
        return done.stdout

    @property
    def container(self) -> Container:
        return Container.running(self.name)


@contextlib.contextmanager
def reading(folder: Path, example: str, name: str, image: str, mms_image: str = "") -> Iterator[Reader]:
    copy = shutil.copytree(EXAMPLES / example, folder / example)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.suffix == ".sh" else 0o644)
    reader = Reader(copy, name, image, mms_image)
    docker("rm", "--force", reader.name, check=False)
    try:
        yield reader
    finally:
        docker("rm", "--force", "--volumes", reader.name, check=False)


def _is_gone(container: Container) -> bool:
    try:
        container.request("GET", "/ping", timeout_s=2)
    except OSError:
        return True
    return False


def test_the_bring_your_own_sample_runs_with_one_changed_line(trusted_base: str, tmp_path: Path) -> None:
    start, check, remove = commands(BYO)
    with reading(tmp_path, "byo-sample", "my-endpoint", trusted_base) as reader:
        reader.run(start)
        assert reader.run(check).rstrip().endswith('"Model \\"linear\\" unregistered"\n}'), "the last answer"
        container = reader.container
        url = "/opt/ml/models/linear/model"
        assert container.load("linear", url).status == 200
        assert container.load("linear", url).status == 409
        assert container.models() == ["linear"]
        assert container.invoke("linear", "1,2,4\n0,0,0").json == [2.0, 3.0]
        assert container.invoke("linear", "no number").status == 503
        assert container.unload("linear").status == 200
        assert container.invoke("linear", "1,2,4").status == 404
        docker("kill", "--signal=TERM", reader.name)
        poll(lambda: _is_gone(container), 30, "the server to end")
        assert container.state("Running") is True, "the sample's entry point waits for ever"
        reader.run(remove)


def test_a_handler_service_of_sagemaker_inference_runs_with_one_changed_line(
    trusted_base: str, tmp_path: Path
) -> None:
    start, check, stop = commands(SERVICE)
    with reading(tmp_path, "sagemaker-inference", "my-service", trusted_base) as reader:
        reader.run(start)
        assert reader.run(check).endswith("[2.0]")
        container = reader.container
        assert container.invoke("linear", "1,2,4", accept="text/csv").body.split() == [b"2.0"]
        assert container.invoke("linear", b"x", "image/png").status == 500
        docker("stop", "--time=30", reader.name, timeout_s=40)
        assert container.state("ExitCode") == 0, container.logs()
        reader.run(stop)


def test_a_server_with_config_properties_runs_with_one_changed_line(
    trusted_base: str, tmp_path: Path
) -> None:
    start, check, remove = commands(CONFIG)
    with reading(tmp_path, "config-properties", "my-server", trusted_base) as reader:
        reader.run(start)
        assert reader.run(check).split("}")[-1].split() == ["[", "2.0", "]"]
        container = reader.container
        assert container.request("GET", "/models").status == 404, "management has its own port"
        wrong = container.request(
            "POST", "/predictions/linear", "[[1]]", {"Content-Type": "application/json"}
        )
        assert wrong.status == 400
        assert "expected 3 numbers, got 1" in wrong.json["message"]
        assert "vmargs" in container.logs()
        reader.run(remove)


def test_the_real_server_takes_over_again(mms_image: str, tmp_path: Path) -> None:
    [back] = commands(BACK)
    with reading(tmp_path, "byo-sample", "my-endpoint", "", mms_image) as reader:
        assert "[2.0]" in reader.run(back)


def test_the_sample_runs_unchanged_on_the_image_of_the_real_server(
    mms_image: str, start: Start, tmp_path: Path
) -> None:
    with reading(tmp_path, "byo-sample", "none", "") as reader:
        container = start(
            f"--volume={reader.folder}/models:/opt/ml/models:ro",
            f"--volume={reader.folder}/model_handler.py:/home/model-server/model_handler.py:ro",
            f"--volume={reader.folder}/dockerd-entrypoint.py:/usr/local/bin/dockerd-entrypoint.py:ro",
            "--env=SAGEMAKER_MULTI_MODEL=true",
            "--entrypoint=python",
            name=mms_image,
            command=("/usr/local/bin/dockerd-entrypoint.py", "serve"),
        )
        assert container.load("linear", "/opt/ml/models/linear/model").json == {"status": "Workers scaled"}
        assert container.invoke("linear", "1,2,4").json == [2.0]


def test_the_real_server_serves_built_in_frameworks_read_only_and_for_any_user(
    mms_image: str, start: Start, models: dict[str, ModelFolder], mount: str
) -> None:
    container = start(
        "--read-only",
        "--tmpfs=/tmp",
        "--user=1000:1000",
        f"--volume={mount}",
        "--env=SAGEMAKER_MULTI_MODEL=true",
        name=mms_image,
    )
    model = models["xgboost"]
    assert container.load("x", model.url).status == 200
    assert container.load("x", model.url).status == 409
    answer = container.invoke("x", model.csv)
    assert answer.numbers() == pytest.approx(model.expected, rel=1e-5)
    assert container.invoke("x", "1,2,oops,4").status == 400
    docker("stop", "--time=30", container.id, timeout_s=40)
    assert container.state("ExitCode") == 0, container.logs()


def test_the_image_of_the_real_server_has_its_own_commands(mms_image: str) -> None:
    script = "for name in multi-model-server java; do command -v $name; done"
    where = docker("run", "--rm", "--entrypoint=sh", mms_image, "-c", script)
    assert where.split() == ["/usr/local/bin/multi-model-server", "/usr/local/bin/java"]
    labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", mms_image))
    assert labels["mmekit.engine"] == "mms"
    size = int(docker("image", "inspect", "--format", "{{.Size}}", mms_image)) / 1e6
    print(f"mmekit with XGBoost, Multi Model Server and Java: {size:.0f} MB with its base")
