from __future__ import annotations

import os
import pty

import pytest

from mmekit_toolkit.images.push_bars import PushBars
from mmekit_toolkit.images.push_progress import PushProgress
from tests.support.terminal import drawn

#: As an engine of version 20.10 sends them.
EVENTS = [
    {"status": "The push refers to repository [localhost:5000/churn]"},
    {"status": "Preparing", "progressDetail": {}, "id": "8dfa5195944b"},
    {"status": "Pushing", "progressDetail": {"current": 33280, "total": 300000}, "id": "8dfa5195944b"},
    {"status": "Retrying in 5 seconds", "progressDetail": {}, "id": "8dfa5195944b"},
    {"status": "Retrying in 4 seconds", "progressDetail": {}, "id": "8dfa5195944b"},
    {"status": "Pushing", "progressDetail": {"current": 301568, "total": 300000}, "id": "8dfa5195944b"},
    {"status": "Pushed", "progressDetail": {}, "id": "8dfa5195944b"},
    {"status": "Layer already exists", "progressDetail": {}, "id": "0123456789ab"},
    {"status": "Layer already exists", "progressDetail": {}, "id": "0123456789ab"},
    {"status": "1: digest: sha256:12 size: 527"},
    {"progressDetail": {}, "aux": {"Tag": "1", "Digest": "sha256:12", "Size": 527}},
]


LINES = [
    "mmekit push: 8dfa5195944b: the registry was lost; retrying in 5 seconds",
    "mmekit push: 8dfa5195944b: pushed (0.3 MB)",
    "mmekit push: 0123456789ab: layer already exists",
]


def test_without_a_terminal_a_layer_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown = PushProgress("mmekit push")
    for event in EVENTS:
        shown.event(event)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == LINES


def test_on_a_terminal_a_layer_is_a_bar_until_it_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    main, side = pty.openpty()
    with os.fdopen(side, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr("sys.stderr", terminal)
        with PushBars("mmekit push") as shown:
            for event in EVENTS:
                shown.event(event)
    said = drawn(main)
    assert "/300.0 kB" in said
    for line in LINES:
        assert line in said
