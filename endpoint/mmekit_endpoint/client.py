"""For those who call a multi-model endpoint, AWS's or a local one: wait for models that are not loaded yet.

The first call of a model waits about 60 s for its download and load; then the service answers
ModelNotReadyException (429) and goes on loading, 360 s in all (AWS: "Invoke a Multi-Model Endpoint").
Clients of botocore from 1.44 on do not try again by themselves: their retry mode is "standard", which leaves
out errors that the service's model has without a retry trait. Nothing here needs the rest of this package.
"""

from __future__ import annotations

import random
import time
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError

#: The service's errors that another try may cure. ModelError is not one: the model has had the request.
RETRIED = frozenset(
    {
        "ModelNotReadyException",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)

#: Waits between tries are random, below bounds that double from the first to the last, in seconds.
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 8.0


def config(**overrides: Any) -> Config:
    """Make the configuration of a ``sagemaker-runtime`` client whose own retries wait for cold models.

    ``boto3.client("sagemaker-runtime", config=config())``, then ``invoke_endpoint`` as ever. ``overrides``
    are arguments of ``botocore.config.Config``, instead of these or beside them:

    - ``read_timeout=70``: the service answers within 60 s (AWS: "InvokeEndpoint").
    - ``retries``: mode "legacy", the only one that tries again after ModelNotReadyException, and 6 calls: as
      many as 360 s have room for.
    - ``max_pool_connections=64``: threads that may wait for a model at the same time, each on a connection.
    - ``tcp_keepalive=True``: a connection on which nothing is said for a minute is not taken for dead.
    """
    defaults: dict[str, Any] = {
        "read_timeout": 70,
        "retries": {"mode": "legacy", "total_max_attempts": 6},
        "max_pool_connections": 64,
        "tcp_keepalive": True,
    }
    return Config(**{**defaults, **overrides})


def invoke(client: Any, *, deadline_s: float = 360.0, **kwargs: Any) -> dict[str, Any]:
    """Call ``client.invoke_endpoint(**kwargs)``, and again while the model is not ready.

    Works with any ``sagemaker-runtime`` client, whatever its retry mode. A Body that is a stream is sent from
    where it stood at each try.

    Parameters
    ----------
    deadline_s
        No try begins later than this after the first. One that has begun takes as long as the client lets it.

    Raises
    ------
    botocore.exceptions.ClientError
        The last error, when time is up; at once what is not in RETRIED, and any where Body cannot be rewound.

    Returns
    -------
    What ``invoke_endpoint`` returns.
    """
    body = kwargs.get("Body", b"")
    position = body.tell() if hasattr(body, "seek") else None
    last_start = time.monotonic() + deadline_s
    longest_wait_s = _FIRST_WAIT_S
    while True:
        try:
            answer: dict[str, Any] = client.invoke_endpoint(**kwargs)
            return answer
        except ClientError as error:
            # Half of it at least: calls that were refused together come back spread out, but not at once.
            wait_s = random.uniform(longest_wait_s / 2, longest_wait_s)
            if error.response["Error"]["Code"] not in RETRIED or time.monotonic() + wait_s > last_start:
                raise
            if position is not None:
                body.seek(position)
            elif hasattr(body, "read"):
                raise
        time.sleep(wait_s)
        longest_wait_s = min(2 * longest_wait_s, _LONGEST_WAIT_S)
