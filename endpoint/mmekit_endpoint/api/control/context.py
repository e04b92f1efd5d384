"""What operations work with: the database, how the service was started, and who asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmekit_endpoint.api.control.definitions import Definitions
from mmekit_endpoint.api.control.settling import Settling
from mmekit_endpoint.database import Database, resource_arn


@dataclass(frozen=True, slots=True)
class Context:
    """What one request's operation is given."""

    database: Database
    definitions: Definitions
    settling: Settling
    #: What runs containers: docker or process.
    launcher: str
    #: The region that the request is signed for.
    region: str

    def arn(self, kind: str, name: str) -> str:
        """Return the ARN that a resource has, or would have, in the request's region."""
        return resource_arn(self.region, kind, name)


#: A validated request in, the answer's members out; None is an answer without a body.
#: Any: requests and answers are JSON, typed by the service model.
Operation = Callable[[Context, dict[str, Any]], dict[str, Any] | None]
