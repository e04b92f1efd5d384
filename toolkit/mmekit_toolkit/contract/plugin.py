"""pytest's side of the conformance kit: its options, and the fixture ``mme_container``.

pytest loads this module in every session where mmekit is installed. It imports the kit only where a session
asks for it, and changes nothing in one that does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from mmekit_toolkit.contract.plugin_names import names

if TYPE_CHECKING:
    from mmekit_toolkit.contract.own_tests import MmeContainer

#: The name under which pytest knows the run, where there is one.
RUN = "mme-contract-run"

#: What a session must say to have a run.
ASKING = "--mme-contract IMAGE|URL, or --mme-contract-command COMMAND"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options; each is also a line of pytest's configuration file, ``mme_contract_…``."""
    group = parser.getgroup("mme-contract", "conformance of a container for multi-model endpoints (mmekit)")
    for name, metavar, text in (
        ("", "IMAGE|URL", "check this image, or this server, with one test for each clause of the contract"),
        ("-command", "COMMAND", "check the server that this command line starts"),
        ("-model", "DIR", "load this model in place of the kit's own"),
        ("-payload", "FILE", "a request's body for that model"),
        ("-content-type", "TYPE", "the Content-Type of that request"),
        ("-accept", "TYPE", "its Accept"),
        ("-models-dir", "DIR[:AS]", "a folder for models that a server at a URL sees too, as AS"),
        ("-platform", "PLATFORM", "the image's platform, such as linux/amd64"),
        ("-start-timeout", "SECONDS", "how long the server may take until /ping answers"),
    ):
        group.addoption(names(name)[0], metavar=metavar, help=text)
        parser.addini(names(name)[1], text)
    for name, metavar, text in (
        ("-env", "NAME=VALUE", "a variable of the server; repeatable"),
        ("-clause", "NAME", "check only this clause; repeatable"),
    ):
        group.addoption(names(name)[0], metavar=metavar, help=text, action="append")
        parser.addini(names(name)[1], text, type="linelist")


def pytest_configure(config: pytest.Config) -> None:
    """Begin a run where one is asked for. Raises pytest.UsageError for options that cannot be used."""
    config.addinivalue_line("markers", "mme_contract: a clause of the contract of multi-model containers")
    asking = [names(name) for name in ("", "-command")]
    if any(config.getoption(option) or config.getini(line) for option, line in asking):
        # Here, since sessions without a run pay nothing.
        from mmekit_toolkit.contract.clause_items import ContractRun

        config.pluginmanager.register(ContractRun(config), RUN)


@pytest.fixture
def mme_container(request: pytest.FixtureRequest) -> Iterator[MmeContainer]:
    """A running container: ``load`` a model's folder or archive, then ``invoke`` it.

    It is the one whose contract this session checks; without --mme-contract the test is skipped. What a test
    has loaded is unloaded at its end.
    """
    run = request.config.pluginmanager.get_plugin(RUN)
    if run is None:
        pytest.skip(f"it needs a container: {ASKING}")
    with run.container() as container:
        yield container
