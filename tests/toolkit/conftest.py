"""Marks what is here: tests that start moto, the local endpoint, an S3 server or sabotaged containers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.toolkit.moto_server import MotoServer

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def shared_moto() -> Iterator[MotoServer]:
    """moto's server, for `moto`: a start takes seconds, a reset none."""
    with MotoServer() as server:
        yield server


@pytest.fixture(scope="module")
def moto(shared_moto: MotoServer) -> MotoServer:
    """An AWS in which there is nothing."""
    shared_moto.reset()
    return shared_moto


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.toolkit)
