"""What AWS answers when it does not do what it was asked, and what a person reads then."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.toolkit.commands import MMEKIT, Mmekit, local

COMMAND = ("models", "list", "churn")
DENIED = "User: u is not authorized to perform: sagemaker:DescribeEndpoint"


class Answers:
    """An AWS that gives these answers, (status, body), one after the other; the last one for ever."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self.requests = 0
        self._answers = list(answers)
        self._lock = threading.Lock()

    def next(self) -> tuple[int, bytes]:
        with self._lock:
            self.requests += 1
            return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@contextmanager
def served(answers: Answers) -> Iterator[Mmekit]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, body = answers.next()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield local(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def refusal(code: str, message: str = "") -> tuple[int, bytes]:
    return 400, json.dumps({"__type": code, "message": message}).encode()


@pytest.mark.parametrize(
    ("answer", "exit_code", "said"),
    [
        (
            refusal("ExpiredTokenException", "the token is expired"),
            5,
            "the credentials have expired. Sign",
        ),
        (refusal("UnrecognizedClientException", "invalid token"), 5, "AWS does not accept the credentials"),
        (
            refusal("AccessDeniedException", DENIED),
            5,
            f"not allowed ({DENIED}). `mmekit iam deployer` prints the policy",
        ),
        (refusal("ValidationException", 'Could not find endpoint "x"'), 7, "there is no endpoint churn"),
        (refusal("ResourceLimitExceeded", "no more"), 1, "DescribeEndpoint: no more (ResourceLimitExceeded)"),
        ((404, b"<html>Not AWS</html>"), 1, "the answer was HTTP 404 and none of AWS's own"),
    ],
)
def test_an_answer_becomes_a_sentence_and_an_exit_code(
    answer: tuple[int, bytes], exit_code: int, said: str
) -> None:
    with served(Answers(answer)) as mmekit:
        done = mmekit(*COMMAND, code=exit_code)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_throttling_aws_is_asked_again() -> None:
    answers = Answers(
        refusal("ThrottlingException", "Rate exceeded"),
        (503, b""),
        refusal("ValidationException", "Could not find endpoint"),
    )
    with served(answers) as mmekit:
        mmekit(*COMMAND, code=7)
    assert answers.requests == 3


INVOKE = ("invoke", "churn", "a.tar.gz", "--data", "1", "--content-type", "text/csv")


def test_a_call_that_is_not_allowed_leads_to_the_callers_policy() -> None:
    with served(Answers(refusal("AccessDeniedException", "no InvokeEndpoint"))) as mmekit:
        done = mmekit(*INVOKE, code=5)
    assert "calling a.tar.gz of churn is not allowed (no InvokeEndpoint). `mmekit iam caller`" in done.stderr


def test_a_call_that_sagemaker_cannot_take_now_is_made_again() -> None:
    unavailable = (503, b'{"__type": "ServiceUnavailable", "Message": "later"}')
    answers = Answers(unavailable, refusal("ThrottlingException", "Rate exceeded"), (200, b"answer"))
    with served(answers) as mmekit:
        done = mmekit(*INVOKE, "-v")
    assert done.raw == b"answer"
    assert re.search(r"^a.tar.gz: ServiceUnavailable \(\d+ s\); calling again\.$", done.stderr, re.MULTILINE)
    assert "3 tries" in done.stderr


def test_a_call_that_the_model_may_have_had_is_not_made_again() -> None:
    failure = (500, b'{"__type": "InternalFailure", "Message": "no luck"}')
    answers = Answers(failure)
    with served(answers) as mmekit:
        done = mmekit(*INVOKE, code=1)
    assert answers.requests == 1
    assert "(InternalFailure: no luck). `mmekit status churn`" in done.stderr


def test_a_stack_trace_is_shown_to_those_who_ask_for_it() -> None:
    with served(Answers(refusal("AccessDeniedException", "no"))) as mmekit:
        command = [MMEKIT, *COMMAND, "--debug"]
        done = subprocess.run(command, env=mmekit.environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 5
    assert "Traceback" in done.stderr
    assert done.stderr.rstrip().endswith("prints the policy that the commands need.")


def test_the_regions_of_options_variables_and_profiles(tmp_path: Path) -> None:
    """--region goes first, then AWS_REGION, then the profile's."""
    config = tmp_path / "config"
    config.write_text(
        "[profile there]\nregion = eu-west-1\naws_access_key_id = a\naws_secret_access_key = b\n"
    )
    answers = Answers(refusal("ValidationException", "Could not find endpoint"))
    with served(answers) as mmekit:
        with_profile = mmekit.also(AWS_CONFIG_FILE=str(config))
        of_profile = with_profile.also(AWS_REGION="")(*COMMAND, "--profile", "there", code=7)
        of_variable = with_profile(*COMMAND, "--profile", "there", code=7)
        of_option = with_profile(*COMMAND, "--region", "ap-south-1", code=7)
    assert "in eu-west-1" in of_profile.stderr
    assert "in us-east-1" in of_variable.stderr
    assert "in ap-south-1" in of_option.stderr
