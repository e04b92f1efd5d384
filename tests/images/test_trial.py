from __future__ import annotations

from typing import Any

import pytest

from mmekit_toolkit.images.trial import addresses


def described(ports: Any, **networks: str) -> dict[str, Any]:
    own = {name: {"IPAddress": address} for name, address in networks.items()}
    return {"NetworkSettings": {"Ports": ports, "Networks": own}}


BOUND = {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "49153"}]}
BOTH = {"8080/tcp": [{"HostIp": "0.0.0.0", "HostPort": "49153"}, {"HostIp": "::", "HostPort": "49153"}]}


@pytest.mark.parametrize(
    ("attrs", "remote", "expected"),
    [
        (described(BOUND, bridge="172.17.0.2"), None, [("127.0.0.1", 49153), ("172.17.0.2", 8080)]),
        (described(BOUND, bridge=""), None, [("127.0.0.1", 49153)]),
        (described(BOTH, bridge="172.17.0.2"), "engine.lan", [("engine.lan", 49153)]),
        (described({}, bridge="172.17.0.2"), None, [("172.17.0.2", 8080)]),
        (described(None), None, []),
    ],
)
def test_a_container_is_reached_where_its_engine_is(
    attrs: dict[str, Any], remote: str | None, expected: list[tuple[str, int]]
) -> None:
    assert list(addresses(attrs, remote)) == expected
