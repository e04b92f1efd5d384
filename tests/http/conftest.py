from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.http.support import LOOPS, Serve, serving


@pytest.fixture(params=sorted(LOOPS))
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Starts servers; the test runs once on each event loop, and fails when one leaves something behind."""
    with serving(request.param) as start:
        yield start


@pytest.fixture(scope="module", params=sorted(LOOPS))
def serve_module(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """As ``serve``, with servers that live as long as the file's tests."""
    with serving(request.param) as start:
        yield start
