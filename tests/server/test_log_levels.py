"""All lines of a record that a model logs carry its level, in both forms of the log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server, until

MODEL = """
import logging, sys
log = logging.getLogger("people.model")

def model_fn(model_dir):
    return None

def transform_fn(model, data, content_type, accept):
    try:
        raise ValueError("two\\n  lines")
    except ValueError:
        log.exception("exc")
    log.warning("first\\n\\nINFO third")
    print("printed to\\nstandard error", file=sys.stderr)
    return "logged", "text/plain"
"""


@pytest.fixture(params=["json", "mms"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text(MODEL)
    with Server(MMEKIT_LOG_FORMAT=request.param) as server:
        assert server.load("m", tmp_path).status == 200
        assert server.invoke("m", b"").text == "logged"
        until(lambda: "standard error" in "".join(server.raw))
        yield server


def written(server: Server) -> list[tuple[str, str]]:
    """Level and text of each line that the model wrote to its standard error."""
    if server.lines:
        return [(line["level"], line["message"]) for line in server.lines if line.get("stream") == "stderr"]
    return re.findall(r"\[(\w+) *\] W-\d+-m-stderr MODEL_LOG - (.*)\n", "".join(server.raw))


def test_every_line_of_a_record_has_the_records_level(server: Server) -> None:
    lines = written(server)
    by_text = {text: level for level, text in lines}
    assert by_text["people.model: exc"] == "ERROR"
    assert by_text["Traceback (most recent call last):"] == "ERROR"
    assert by_text['    raise ValueError("two\\n  lines")'] == "ERROR"
    assert by_text["ValueError: two"] == "ERROR"
    assert by_text["  lines"] == "ERROR"
    warning = "WARNING" if server.lines else "WARN"
    at = lines.index((warning, "people.model: first"))
    assert lines[at + 1 : at + 3] == [(warning, ""), (warning, "INFO third")]


def test_what_is_printed_is_information(server: Server) -> None:
    assert written(server)[-2:] == [("INFO", "printed to"), ("INFO", "standard error")]
