"""One local endpoint for all tests here, and an S3 server where it matters that it is another's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.endpoint.object_store import ObjectStore, Unavailable
from tests.endpoint.service import Service
from tests.toolkit.commands import Mmekit, local


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A local endpoint whose metrics come soon."""
    state = tmp_path_factory.mktemp("local") / "state"
    with Service(state, "--metrics-period", "1", "--settle", "0") as running:
        yield running


@pytest.fixture(scope="session")
def mmekit(service: Service) -> Mmekit:
    """The command, for the local endpoint."""
    return local(service.url)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A real S3 server that verifies keys."""
    try:
        server = ObjectStore(tmp_path_factory.mktemp("store"))
    except Unavailable as reason:
        pytest.skip(str(reason))
    with server:
        server.client().create_bucket(Bucket="models")
        yield server


@pytest.fixture(scope="session")
def with_store(store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mmekit]:
    """The command, for a local endpoint named ``shop`` whose models are in that server."""
    key_id, secret = store.owner
    keys = {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret}
    state = tmp_path_factory.mktemp("with-store") / "state"
    with Service(state, "--s3-endpoint-url", store.url, **keys) as running:
        running.create("shop", url="s3://models/shop/")
        yield Mmekit(AWS_ENDPOINT_URL=running.url, AWS_ENDPOINT_URL_S3=store.url, **keys)
