"""The pytest plugin: a test for each clause, and a container for people's own tests."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from mmekit_toolkit.contract import probe
from mmekit_toolkit.contract.clauses import CLAUSES
from tests.toolkit.contract.kit import STAND_IN, environment

COMMAND = f"--mme-contract-command={shlex.join(STAND_IN)}"
#: Quick, and enough where any clause will do.
FEW = "list-empty or load-conflict or get-not-loaded"

Session = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Run pytest in an empty folder, with files by name."""

    def run(*arguments: str, sabotage: str | None = None, **files: str) -> subprocess.CompletedProcess[str]:
        for name, text in files.items():
            (tmp_path / name.replace("__", ".")).write_text(text)
        # Options are those of the test, and not of a file in a folder above.
        (tmp_path / "pytest.ini").touch()
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-rA", "--color=no", "-p", "no:cacheprovider", *arguments],
            cwd=tmp_path,
            env={**environment(sabotage), "COLUMNS": "300"},
            capture_output=True,
            text=True,
            timeout=100,
        )

    return run


# --- the clauses ------------------------------------------------------------------------------------


def test_each_clause_is_a_test_and_collecting_starts_nothing(session: Session, tmp_path: Path) -> None:
    done = session(f"--mme-contract-command=touch {tmp_path}/started", "--collect-only", "-q")
    assert done.returncode == 0, done.stdout
    found = [line for line in done.stdout.splitlines() if "::" in line]
    assert found == [f"mme-contract::{clause.name}" for clause in CLAUSES]
    assert f"{len(CLAUSES)} tests collected" in done.stdout
    assert not (tmp_path / "started").exists()


def test_clauses_pass_and_are_skipped_with_the_reason(session: Session) -> None:
    done = session(COMMAND, "-k", f"{FEW} or label-multi-models")
    assert done.returncode == 0, done.stdout
    assert "3 passed, 1 skipped" in done.stdout
    assert "PASSED mme-contract::load-conflict" in done.stdout
    assert "SKIPPED [1] mme-contract::label-multi-models: it needs an image" in done.stdout


def test_a_broken_clause_tells_what_was_sent_expected_and_received(session: Session, tmp_path: Path) -> None:
    done = session(COMMAND, "-k", FEW, "--junitxml=report.xml", sabotage="second-load-is-fine")
    assert done.returncode == 1
    assert "1 failed, 2 passed" in done.stdout
    for part in ("\n  sent      curl -i -X POST http://127.0.0.1:", "\n  expected  409", "\n  received  200"):
        assert part in done.stdout
    assert "Traceback" not in done.stdout
    assert ".py:" not in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert line.startswith("FAILED mme-contract::load-conflict - expected 409")

    (failure,) = ElementTree.parse(tmp_path / "report.xml").iter("failure")
    assert failure.get("message", "").startswith("expected 409")
    assert "curl -i" in (failure.text or "")
    cases = {
        (c.get("classname"), c.get("name"))
        for c in ElementTree.parse(tmp_path / "report.xml").iter("testcase")
    }
    assert ("mme-contract", "load-conflict") in cases


def test_clauses_are_chosen_by_option_marker_and_deselection(session: Session) -> None:
    own = "def test_mine():\n    pass\n"
    named = ["--mme-contract-clause=get", "--mme-contract-clause=list-empty"]
    done = session(COMMAND, *named, "-m", "mme_contract", "--deselect=mme-contract::get", test_own__py=own)
    assert done.returncode == 0, done.stdout
    assert "PASSED mme-contract::list-empty" in done.stdout
    assert "1 passed, 2 deselected" in done.stdout
    done = session(COMMAND, "-m", "not mme_contract")
    assert f"1 passed, {len(CLAUSES)} deselected" in done.stdout


def test_the_server_is_started_once_and_always_ended(session: Session, tmp_path: Path) -> None:
    """Also when -x ends the session, and the server does not listen to SIGTERM."""
    script = f"echo $$ >> {tmp_path}/pids; exec {shlex.join(STAND_IN)}"
    done = session(
        f"--mme-contract-command=sh -c {shlex.quote(script)}",
        "--mme-contract-env=SABOTAGE=ignores-sigterm",
        "-k",
        f"{FEW} or starts-with-serve",
        "-x",
    )
    assert "4 passed" in done.stdout
    script = script.replace("pids", "others")
    done = session(
        f"--mme-contract-command=sh -c {shlex.quote(script)}",
        "-k",
        "load-conflict or unload",
        "-x",
        sabotage="second-load-is-fine",
    )
    assert "1 failed" in done.stdout
    for file in ("pids", "others"):
        (pid,) = (tmp_path / file).read_text().split()
        assert not Path("/proc", pid).exists()


def test_a_session_that_is_ended_by_sigterm_ends_the_server(tmp_path: Path) -> None:
    own = """
import os, signal, time

def test_that_waits(mme_container):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""
    (tmp_path / "test_own.py").write_text(own)
    (tmp_path / "pytest.ini").touch()
    script = f"echo $$ > {tmp_path}/pid; exec {shlex.join(STAND_IN)}"
    command = f"--mme-contract-command=sh -c {shlex.quote(script)}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", command, "-m", "not mme_contract"],
        cwd=tmp_path,
        env={**environment(), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done.stdout
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()
    assert not [*tmp_path.glob("mmekit-contract-*")]


def test_lines_of_the_configuration_file_stand_for_options(session: Session, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    probe.write(model, "mine")
    ini = f"""[pytest]
mme_contract_command = {shlex.join(STAND_IN)}
mme_contract_env =
    SABOTAGE=get-without-url
    OTHER=1
mme_contract_model = model
mme_contract_payload = payload.json
mme_contract_clause =
    get
    invoke
    answer-6-mib
"""
    deeper = tmp_path / "deeper"
    deeper.mkdir()
    done = session(str(deeper), pytest__ini=ini, payload__json='{"probe": "facts"}')
    assert "FAILED mme-contract::get - " in done.stdout
    assert "PASSED mme-contract::invoke" in done.stdout
    assert "SKIPPED [1] mme-contract::answer-6-mib: only the kit's own model can tell" in done.stdout
    done = session("--mme-contract-env=OTHER=1", "--mme-contract-clause=get", "-m", "mme_contract")
    assert "1 passed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mme-contract=any:image", COMMAND], "expected an image or URL, or a command; both came"),
        ([COMMAND, "--mme-contract-model=here"], "go together"),
        ([COMMAND, "--mme-contract-env=NOTHING"], "expected NAME=VALUE; NOTHING came"),
        ([COMMAND, "--mme-contract-clause=lode"], "there is no clause lode"),
        ([COMMAND, "--mme-contract-start-timeout=soon"], "expected seconds, more than 0; soon came"),
    ],
)
def test_options_that_cannot_be_used_are_an_error_of_usage(
    session: Session, arguments: list[str], message: str
) -> None:
    done = session(*arguments)
    assert done.returncode == 4
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_server_that_cannot_be_had_fails_one_test_and_is_told_once(session: Session) -> None:
    for subject, reason in (
        ("--mme-contract-command=/no/such/program serve", "/no/such/program cannot be run"),
        ("--mme-contract=http://127.0.0.1:9", "http://127.0.0.1:9"),
        ("--mme-contract-command=sh -c 'echo out of luck; exit 3'", "out of luck"),
    ):
        done = session(subject, "-k", FEW)
        assert done.returncode == 1, done.stdout
        assert "1 failed, 2 skipped" in done.stdout
        assert reason in done.stdout
        assert "Traceback" not in done.stdout


# --- a container for people's own tests ---------------------------------------------------------------

OWN = """
import json
import pytest

def test_a_folder_is_loaded(mme_container):
    model = mme_container.load("model")
    answer = model.invoke('{"probe": "facts"}', headers={"X-Amzn-SageMaker-Custom-Attributes": "a"})
    assert (answer.status, answer.json["identity"]) == (200, "mine")
    assert answer.headers["x-amzn-sagemaker-custom-attributes"] == "a"
    assert model.invoke(b"1,2", content_type="text/csv").body == b"1,2"
    assert mme_container.request("GET", f"/models/{model.name}").json["modelUrl"] == model.url

def test_what_the_test_before_has_loaded_is_gone(mme_container):
    assert mme_container.request("GET", "/models").json == {"models": []}

def test_an_archive_is_loaded_and_unloaded(mme_container):
    model = mme_container.load("model.tar.gz", headers={"X-Amzn-SageMaker-Target-Model": "model.tar.gz"})
    assert model.invoke("any").status == 200
    assert model.unload().status == 200
    assert model.invoke("any").status == 404

def test_a_model_that_fails_is_an_error_with_the_answer(mme_container):
    with pytest.raises(AssertionError, match="was answered with 500.*broken on purpose"):
        mme_container.load("broken")
"""


@pytest.fixture
def models(tmp_path: Path) -> None:
    for name, broken in (("model", ""), ("broken", "broken on purpose")):
        (tmp_path / name).mkdir()
        probe.write(tmp_path / name, "mine", broken=broken)
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "model", arcname=".")


def test_a_running_container_is_lent_to_tests(session: Session, models: None) -> None:
    done = session(COMMAND, "-m", "not mme_contract", test_own__py=OWN)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_without_a_subject_such_tests_are_skipped(session: Session, models: None) -> None:
    done = session(test_own__py=OWN)
    assert done.returncode == 0
    assert "4 skipped" in done.stdout
    assert "it needs a container: --mme-contract IMAGE|URL" in done.stdout


def test_a_container_that_ends_is_told_and_replaced(session: Session, tmp_path: Path) -> None:
    script = f"echo $$ >> {tmp_path}/pids; echo last words; exec {shlex.join(STAND_IN)}"
    own = f"""
import os, signal
import pytest

def test_kills(mme_container):
    os.kill(int(open("{tmp_path}/pids").read().split()[-1]), signal.SIGKILL)
    with pytest.raises(Exception, match="GET /ping"):
        mme_container.request("GET", "/ping")

def test_goes_on(mme_container):
    assert mme_container.request("GET", "/ping").status == 200
"""
    command = f"--mme-contract-command=sh -c {shlex.quote(script)}"
    done = session(command, "-m", "not mme_contract", test_own__py=own)
    assert "2 passed, " in done.stdout
    assert "1 error" in done.stdout
    assert "SIGKILL" in done.stdout
    assert "last words" in done.stdout
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    assert not any(Path("/proc", pid).exists() for pid in pids)


# --- sessions that want nothing ---------------------------------------------------------------------


def test_a_session_without_the_options_imports_nothing_of_the_kit(session: Session) -> None:
    own = """
import sys

def test_mine():
    kit = [name for name in sys.modules if name.startswith("mmekit")]
    ours = {"mmekit_toolkit.contract.plugin", "mmekit_toolkit.contract.plugin_names"}
    assert set(kit) == {"mmekit_toolkit", "mmekit_toolkit.contract", *ours}
"""
    done = session("--strict-markers", "--strict-config", "-W", "error", test_own__py=own)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
