"""A model's sample request in its files: written and read back, and free for models that have none."""

from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmekit.archive.sample import BODY, DESCRIPTION, MAX_WARM_UP, Sample, read_sample
from mmekit.errors import InvalidModel
from tests.archive.models import folder

_HEADERS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)


@given(st.binary(), _HEADERS, st.none() | _HEADERS, st.integers(0, MAX_WARM_UP))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, content_type: str, accept: str | None, warm_up: int
) -> None:
    sample = Sample(body, content_type, accept, warm_up)
    path = folder(tmp_path_factory.mktemp("m"), {BODY: sample.body, DESCRIPTION: sample.description})
    assert read_sample(str(path)) == sample


def test_a_model_without_a_sample_costs_one_open_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def counted(path: Any, *args: Any, **more: Any) -> Any:
        opened.append(path)
        return builtins.open(path, *args, **more)

    monkeypatch.setattr("mmekit.archive.sample.open", counted, raising=False)
    assert read_sample(str(tmp_path)) is None
    assert opened == [str(tmp_path / DESCRIPTION)]


def test_a_body_that_is_no_request_is_refused_before_it_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(tmp_path, {BODY: b"", DESCRIPTION: Sample(b"", "text/csv").description})
    os.truncate(path / BODY, 10**12)  # a hole, which takes no disk
    with pytest.raises(InvalidModel, match="MAR-INF/sample-request has more than 104857600 bytes"):
        read_sample(str(path))


@pytest.mark.parametrize("name", [BODY, DESCRIPTION])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path, {BODY: b"", DESCRIPTION: Sample(b"", "text/csv").description})
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(InvalidModel, match=f"{name} is no file"):
        read_sample(str(path))
