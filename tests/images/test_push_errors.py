from __future__ import annotations

import pytest

from mmekit_toolkit.errors import CredentialsError, NotFound, ToolkitError
from mmekit_toolkit.images.name import parse
from mmekit_toolkit.images.push_errors import Cause, cause, explain

NAME = parse("123456789012.dkr.ecr.us-east-1.amazonaws.com/churn:1.0")

#: As engines and ECR have said them.
MESSAGES = {
    'Head "http://127.0.0.1:5000/v2/churn/blobs/sha256:12": EOF': Cause.DROPPED,
    "write tcp 10.0.0.1:1->10.0.0.2:443: write: connection reset by peer": Cause.DROPPED,
    "write tcp 10.0.0.1:1->10.0.0.2:443: write: broken pipe": Cause.DROPPED,
    'Get "http://localhost:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused': Cause.DROPPED,
    "net/http: TLS handshake timeout": Cause.DROPPED,
    "dial tcp: lookup x.dkr.ecr.us-east-1.amazonaws.com: no such host": Cause.DROPPED,
    "received unexpected HTTP status: 503 Service Unavailable": Cause.DROPPED,
    "blob upload unknown": Cause.DROPPED,
    "toomanyrequests: Rate exceeded": Cause.DROPPED,
    "unauthorized: authentication required": Cause.UNAUTHORIZED,
    "no basic auth credentials": Cause.UNAUTHORIZED,
    "denied: Your authorization token has expired. Reauthenticate and try again.": Cause.UNAUTHORIZED,
    "denied: User: arn:aws:iam::1:user/x is not authorized to perform: ecr:InitiateLayerUpload": Cause.DENIED,
    "denied: requested access to the resource is denied": Cause.DENIED,
    "tag invalid: The image tag '1.0' already exists in the 'churn' repository and cannot be overwritten "
    "because the repository is immutable.": Cause.IMMUTABLE_TAG,
    "name unknown: The repository with name 'churn' does not exist in the registry": Cause.NO_REPOSITORY,
    "http: server gave HTTP response to HTTPS client": Cause.NO_TLS,
    "x509: certificate signed by unknown authority": Cause.NO_TLS,
    "manifest invalid: manifest invalid": Cause.OTHER,
}


@pytest.mark.parametrize(("message", "expected"), MESSAGES.items())
def test_a_message_has_one_cause(message: str, expected: Cause) -> None:
    assert cause(message) is expected


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("ecr", [True, False])
def test_every_explanation_has_the_message_and_says_more(message: str, ecr: bool) -> None:
    error = explain(message, NAME, 4, ecr=ecr)
    assert message.rstrip(".") in error.message
    assert len(error.message) > len(NAME.address) + len(message) + 20


def test_exit_codes_tell_credentials_from_the_rest() -> None:
    assert isinstance(explain("unauthorized: x", NAME, 1, ecr=True), CredentialsError)
    assert "docker login" in explain("unauthorized: x", NAME, 1, ecr=False).message
    assert "mmekit iam deployer" in explain("denied: x", NAME, 1, ecr=True).message
    assert isinstance(explain("name unknown: x", NAME, 1, ecr=True), NotFound)
    lost = explain("EOF", NAME, 4, ecr=True)
    assert type(lost) is ToolkitError
    assert "4 times in a row" in lost.message
