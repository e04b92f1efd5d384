"""Marks what is here, and finds the environments with SageMaker's SDK.

MMEKIT_ENDPOINT_TEST=required   an environment that is not there is a failure, not a reason to skip
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.endpoint)


@pytest.fixture(scope="session")
def sdk2() -> Path:
    """The Python that has SageMaker's SDK 2."""
    return _python("sdk2")


@pytest.fixture(scope="session")
def sdk3() -> Path:
    """The Python that has SageMaker's SDK 3."""
    return _python("sdk3")


def _python(name: str) -> Path:
    folder = ROOT / "build" / name
    if (folder / ".installed").exists():
        return folder / "bin/python"
    reason = f"there is no build/{name}: `make build/{name}/.installed` makes it"
    if os.environ.get("MMEKIT_ENDPOINT_TEST") == "required":
        pytest.fail(f"tests with the SDK were asked for, but {reason}", pytrace=False)
    pytest.skip(reason)
