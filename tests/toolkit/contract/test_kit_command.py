"""The kit over commands: our own server keeps every clause, and what a run says to people and machines."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mmekit_toolkit.contract.clauses import CLAUSES
from tests.support.server import until
from tests.toolkit.contract.kit_runs import COMMAND, SERVE, Result, contract, environment, program

#: A whole run takes half a minute on an idle machine.
pytestmark = pytest.mark.timeout(300)

NAMES = [clause.name for clause in CLAUSES]
IMAGE_ONLY = {"label-multi-models", "label-accept-bind-to-port", "exec-form-entrypoint", "load-out-of-memory"}


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A whole run over `mmekit serve`."""
    return contract(tmp_path_factory.mktemp("own"), *SERVE)


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run of three clauses over `mmekit serve`, told to break one: bodies over 1 MiB are 413."""
    return contract(
        tmp_path_factory.mktemp("broken"),
        "--env=SAGEMAKER_MAX_PAYLOAD_IN_MB=1",
        *SERVE,
        clauses=("payload-6-mib", "load", "label-multi-models"),
    )


# --- our own server -------------------------------------------------------------------------------


def test_our_server_keeps_every_clause(own: Result) -> None:
    assert own.code == 0, own.output
    skipped = IMAGE_ONLY if sys.platform == "linux" else {*IMAGE_ONLY, "unload-frees-memory"}
    assert own.verdicts == {name: "skipped" if name in skipped else "passed" for name in NAMES}


def test_a_skipped_clause_says_why(own: Result) -> None:
    for name in IMAGE_ONLY:
        assert own.clause(name)["reason"] == "it needs an image"


def test_the_run_leaves_no_folder(own: Result, broken: Result) -> None:
    urls = [line for line in broken.clause("payload-6-mib")["exchange"]["before"] if '"url"' in line]
    folder = Path(urls[0].partition('"url": "')[2].partition('"')[0])
    assert folder.parent.parent.name.startswith("mmekit-contract-")
    assert not folder.parent.parent.exists()


# --- what a person sees ---------------------------------------------------------------------------


def test_the_table_has_each_clause_with_its_verdict(own: Result) -> None:
    lines = {line.split()[0]: line.split()[1] for line in own.output.splitlines() if len(line.split()) > 2}
    assert {name: lines[name] for name in NAMES} == own.verdicts
    assert own.output.splitlines()[-1].startswith(
        f"command {COMMAND} serve: 36 passed, 0 failed, 4 skipped in "
    )


def test_progress_goes_to_stderr_a_line_for_each_clause(own: Result) -> None:
    lines = own.remarks.splitlines()
    assert [line.split()[0] for line in lines] == [f"{n}/{len(NAMES)}" for n in range(1, len(NAMES) + 1)]
    assert [line.split()[1].rstrip(":") for line in lines] == NAMES


def test_a_broken_clause_ends_with_3_and_its_name(broken: Result) -> None:
    assert broken.code == 3
    assert broken.remarks.splitlines()[-1] == "mmekit contract: 1 of 3 clauses failed: payload-6-mib."
    assert broken.verdicts == {"label-multi-models": "skipped", "load": "passed", "payload-6-mib": "failed"}


def test_a_broken_clause_is_shown_with_what_was_sent_expected_and_received(broken: Result) -> None:
    block = broken.output[broken.output.index("payload-6-mib: A request of 6 MiB is accepted\n") :]
    for start in ("  source    https://", "  before    ", "  sent      curl -i -X POST http://127.0.0.1:"):
        assert f"\n{start}" in block
    assert "--data-binary @body  # 6291456 bytes: " in block
    assert "\n  expected  that 6291456 bytes are not too many\n" in block
    assert "\n  received  413, application/json, after " in block
    assert "SAGEMAKER_MAX_PAYLOAD_IN_MB" in block


def test_the_requests_that_led_there_are_told(broken: Result) -> None:
    before = broken.clause("payload-6-mib")["exchange"]["before"]
    assert [line.split()[0] for line in before] == ["POST", "POST"]
    assert before[0].startswith('POST /models {"model_name": "')
    assert " → 200" in before[0]


def test_json_goes_to_stdout_alone(tmp_path: Path) -> None:
    result = contract(tmp_path, "--json=-", *SERVE, clauses=("list-empty",))
    document = json.loads(result.output)
    assert [clause["name"] for clause in document["clauses"]] == ["list-empty"]


def test_all_clauses_are_listed_with_rule_and_source() -> None:
    done = subprocess.run([COMMAND, "contract", "--list"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    for clause in CLAUSES:
        assert f"  {clause.name:<26}{clause.title}\n{' ' * 28}{clause.source}" in done.stdout
        assert clause.source.startswith("https://")
        assert clause.title


# --- what machines read ---------------------------------------------------------------------------


def test_json_has_the_run_and_each_outcome(own: Result, broken: Result) -> None:
    document = own.json
    assert document["subject"] == f"{COMMAND} serve"
    assert document["form"] == "command"
    assert (document["passed"], document["failed"], document["skipped"]) == (36, 0, 4)
    assert document["took_s"] > 0
    for clause, outcome in {clause.name: clause for clause in CLAUSES}.items():
        found = own.clause(clause)
        assert (found["title"], found["source"]) == (outcome.title, outcome.source)
        assert found["exchange"] is None
    failed = broken.clause("payload-6-mib")
    assert set(failed["exchange"]) == {"before", "sent", "expected", "received"}
    assert failed["reason"].startswith("expected that 6291456 bytes are not too many; received 413")


def test_junit_counts_and_names_what_json_does(own: Result, broken: Result) -> None:
    for result in (own, broken):
        (suite,) = result.junit.findall("testsuite")
        for element in (result.junit, suite):
            counts = [int(element.attrib[name]) for name in ("tests", "failures", "errors", "skipped")]
            verdicts = [*result.verdicts.values()]
            assert counts == [len(verdicts), verdicts.count("failed"), 0, verdicts.count("skipped")]
        assert {case.attrib["name"]: _junit_verdict(case) for case in suite} == result.verdicts
        assert all(float(case.attrib["time"]) >= 0 for case in suite)
        assert all(case.attrib["classname"].startswith("contract.") for case in suite)


def _junit_verdict(case: ElementTree.Element) -> str:
    tags = {child.tag for child in case} - {"system-out"}
    return {"failure": "failed", "skipped": "skipped"}[tags.pop()] if tags else "passed"


def test_junit_has_the_whole_block_of_a_failure(broken: Result) -> None:
    failure = broken.junit.find(".//testcase[@name='payload-6-mib']/failure")
    assert failure is not None
    assert failure.attrib["message"].startswith("expected that 6291456 bytes")
    assert "  sent      curl -i" in (failure.text or "")


def test_control_characters_of_a_server_do_not_spoil_the_xml(tmp_path: Path) -> None:
    server = program(tmp_path, r"if path == '/models': status, body = 500, b'\x00\x1b[31m\xff'")
    result = contract(tmp_path, "--", sys.executable, str(server), clauses=("list-empty",))
    assert result.code == 3
    assert result.junit.find(".//failure") is not None


# --- servers that do not do ------------------------------------------------------------------------


def test_a_server_that_ends_in_a_clause_breaks_it_and_is_started_again(tmp_path: Path) -> None:
    server = program(
        tmp_path,
        """
        sys.pings = getattr(sys, "pings", 0) + (path == "/ping")
        if sys.pings == 3:
            print("I leave", flush=True)
            os._exit(9)
        if path == "/models":
            status, body = 200, b'{"models": []}'
        """,
    )
    result = contract(tmp_path, "--", sys.executable, str(server), clauses=("ping-idle", "list-empty"))
    assert result.verdicts == {"ping-idle": "failed", "list-empty": "passed"}
    failed = result.clause("ping-idle")
    assert failed["reason"] == "the server ended with exit code 9"
    assert failed["log"][-1] == "I leave"
    assert "I leave" in result.output


def test_a_command_that_ends_at_once_breaks_the_start_and_is_shown(tmp_path: Path) -> None:
    result = contract(
        tmp_path,
        "--",
        "sh",
        "-c",
        "echo no module named server; exit 3",
        clauses=("starts-with-serve", "load"),
    )
    assert result.code == 3
    assert result.verdicts == {"starts-with-serve": "failed", "load": "skipped"}
    failed = result.clause("starts-with-serve")
    assert failed["exchange"]["received"] == "it ended with exit code 3 before it answered /ping"
    assert failed["log"] == ["no module named server"]
    assert "it ended with exit code 3" in result.clause("load")["reason"]


def test_a_command_that_never_answers_is_given_up_and_ended(tmp_path: Path) -> None:
    began = time.monotonic()
    script = f"echo $$ > {tmp_path}/pid; exec sleep 1000"
    result = contract(tmp_path, "--start-timeout=1", "--", "sh", "-c", script, clauses=("starts-with-serve",))
    assert time.monotonic() - began < 60
    received = result.clause("starts-with-serve")["exchange"]["received"]
    assert received == "within 1 s it did not answer /ping; nothing listened"
    assert not _lives(int((tmp_path / "pid").read_text()))


def test_a_command_that_ignores_the_variable_breaks_that_clause_alone(tmp_path: Path) -> None:
    script = f"SAGEMAKER_BIND_TO_PORT=8080 exec {COMMAND} serve"
    chosen = ("starts-with-serve", "port-from-variable", "load")
    result = contract(tmp_path, "--start-timeout=30", "--", "sh", "-c", script, clauses=chosen)
    if result.verdicts["starts-with-serve"] == "failed":
        pytest.skip("something else listens on port 8080 of this machine")
    assert result.verdicts == {
        "starts-with-serve": "passed",
        "port-from-variable": "failed",
        "load": "passed",
    }


def test_a_server_of_other_models_is_told_once_with_the_way_out(tmp_path: Path) -> None:
    server = program(
        tmp_path, "if method == 'POST': status, body = 400, b'a TensorFlow SavedModel was expected'"
    )
    result = contract(tmp_path, "--", sys.executable, str(server), clauses=("load", "unload", "invoke"))
    assert result.code == 1
    (said,) = result.remarks.splitlines()
    assert "the load was answered with 400" in said
    assert "a TensorFlow SavedModel was expected" in said
    assert "--model DIR --payload FILE" in said
    assert result.output == ""


def test_what_was_found_before_a_run_stopped_is_told(tmp_path: Path) -> None:
    server = program(
        tmp_path,
        """
        if method == "POST": status, body = 400, b"a TensorFlow SavedModel was expected"
        """,
    )
    chosen = ("label-multi-models", "ping-idle", "list-empty", "load", "unload")
    result = contract(tmp_path, "--", sys.executable, str(server), clauses=chosen)
    assert result.code == 1
    assert result.verdicts == {
        "label-multi-models": "skipped",
        "ping-idle": "passed",
        "list-empty": "failed",
    }
    assert "list-empty: GET /models is 200 with an empty list" in result.output
    assert "1 passed, 1 failed, 1 skipped, 2 not checked in " in result.output
    said = result.remarks.splitlines()[-1]
    assert said.startswith("mmekit contract: the load was answered with 400")
    assert result.json["stopped"] in said
    assert result.json["not_checked"] == 2
    (suite,) = result.junit.findall("testsuite")
    assert [suite.attrib[name] for name in ("tests", "failures", "errors", "skipped")] == ["4", "1", "1", "1"]
    error = suite.find("testcase[@name='run']/error")
    assert error is not None
    assert error.attrib["message"] in said


def test_a_model_that_cannot_be_copied_is_named(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").symlink_to("nowhere")
    (tmp_path / "payload.csv").write_text("1,2")
    result = contract(tmp_path, f"--model={model}", f"--payload={tmp_path / 'payload.csv'}", *SERVE)
    assert result.code == 1
    assert f"{model}/weights of the model's folder cannot be copied: [Errno 2]" in result.remarks


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = contract(tmp_path, "--", "no-such-program", "serve")
    assert result.code == 7
    assert "the command no-such-program cannot be run: No such file or directory." in result.remarks


# --- what is asked for ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Expected one of: a URL, an image, or -- and a command."),
        (["http://127.0.0.1:8080", *SERVE], "Expected one of: a URL, an image, or -- and a command."),
        (["--clause=ping", *SERVE], "'ping' is no clause; --list lists them"),
        (["--env=PORT", *SERVE], "expected NAME=VALUE, not 'PORT'"),
        (["--model=.", *SERVE], "--model and --payload go together"),
        (["--junit=/no/folder/report.xml", *SERVE], "'/no/folder/report.xml': No such file or directory"),
    ],
)
def test_what_cannot_be_understood_ends_with_2(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        [COMMAND, "contract", *arguments], capture_output=True, text=True, timeout=60, env=environment()
    )
    assert done.returncode == 2
    assert said in done.stderr


# --- the end --------------------------------------------------------------------------------------


def test_what_a_command_has_started_in_a_session_of_its_own_is_ended_too(tmp_path: Path) -> None:
    server = program(
        tmp_path,
        f"""
        import subprocess
        if not os.path.exists("{tmp_path}/pid"):
            child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
            open("{tmp_path}/pid", "w").write(str(child.pid))
        """,
    )
    contract(tmp_path, "--", sys.executable, str(server), clauses=("ping-idle",))
    child = int((tmp_path / "pid").read_text())
    until(lambda: not _lives(child), 30, "the child's end")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_ends_what_it_started(tmp_path: Path, number: signal.Signals) -> None:
    script = f"echo $$ > {tmp_path}/pid; exec {COMMAND} serve"
    kit = subprocess.Popen(
        [COMMAND, "contract", "--", "sh", "-c", script],
        env=environment(TMPDIR=str(tmp_path)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert kit.stderr
        for line in kit.stderr:
            if "list-one: passed" in line:  # the next, list-many, is what takes longest
                break
        server = int((tmp_path / "pid").read_text())
        assert _lives(server)
        os.kill(kit.pid, number)
        _, remarks = kit.communicate(timeout=60)
    finally:
        kit.kill()
        kit.wait()
    assert kit.returncode == 130
    told = r"interrupted after (\d+) of 40 clauses; what was started was ended, what was loaded unloaded\."
    found = re.search(told, remarks)
    assert found, remarks
    assert int(found[1]) >= 19, "as many as were told before; more where this process was slow"
    until(lambda: not _lives(server), 30, "the server's end")
    assert [path.name for path in tmp_path.iterdir()] == ["pid"]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
