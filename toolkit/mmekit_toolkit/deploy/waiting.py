"""Waits until SageMaker has done what it was asked, and notices when it did not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.deploy import log_tail
from mmekit_toolkit.deploy.observed import Described, Endpoint
from mmekit_toolkit.deploy.observing import describe_endpoint
from mmekit_toolkit.deploy.progress import Progress, duration
from mmekit_toolkit.deploy.requests import Wait
from mmekit_toolkit.errors import RolledBack, ToolkitError

#: Between two looks, in seconds: a local endpoint is done at once, AWS after minutes.
_FIRST_LOOK_S = 0.25
_LAST_LOOK_S = 10.0
#: A look right after a change may show what was before it: DescribeEndpoint is eventually consistent.
_STALE_S = 60.0


@dataclass(frozen=True)
class Waiting:
    """How endpoints are waited for. ``timeout_s`` is of one wait."""

    aws: Aws
    progress: Progress
    timeout_s: float

    def settled(self, name: str) -> Endpoint | None:
        """Return the endpoint once its state lasts, None when it is gone. Raises ToolkitError in the end.

        A change that was under way and has failed is told: whoever began it may not be here any more.
        """
        was_moving = False
        for endpoint in self._looks(name):
            if endpoint is None or not endpoint.is_moving:
                if was_moving and endpoint and endpoint.status == "InService" and endpoint.failure_reason:
                    self.progress.step(
                        f"note: the change that was under way failed: {endpoint.failure_reason}"
                    )
                return endpoint
            was_moving = True
        raise AssertionError("looks end with an error")

    def after(self, wait: Wait, before: Described | None, since_ms: int) -> None:
        """Wait for what a step wants.

        ``before`` is what DescribeEndpoint said before the change, which began at ``since_ms``, in
        milliseconds since the epoch.

        Raises
        ------
        RolledBack
            When the endpoint is Failed, or in service as it was before; with the reason and the last log
            lines.
        ToolkitError
            When it takes too long, or the endpoint does not go.
        """
        began_s = time.monotonic()
        for endpoint in self._looks(wait.endpoint):
            if wait.waiter == "endpoint_deleted":
                if endpoint is None:
                    return
                if not endpoint.is_moving and time.monotonic() - began_s > _STALE_S:
                    reason = endpoint.failure_reason or "SageMaker gives no reason"
                    raise ToolkitError(
                        f"{endpoint.name} is {endpoint.status} and not deleted. Reason: {reason}"
                    )
                continue
            if endpoint is not None and endpoint.status == "InService" and _has(endpoint, wait):
                return
            if _is_stale(endpoint, before) and time.monotonic() - began_s < _STALE_S:
                continue
            if endpoint is None:
                raise RolledBack(f"the endpoint {wait.endpoint} is gone: somebody deleted it.")
            if endpoint.is_moving:
                continue
            raise RolledBack(self._what_happened(endpoint, wait, since_ms))

    def _looks(self, name: str) -> Iterator[Endpoint | None]:
        """Yield what DescribeEndpoint says, again and again, and raise when the time is over."""
        deadline = time.monotonic() + self.timeout_s
        pause_s = _FIRST_LOOK_S
        with self.progress as progress:
            while True:
                described = describe_endpoint(self.aws, name)
                endpoint = Endpoint(described) if described else None
                yield endpoint
                if time.monotonic() > deadline:
                    break
                progress.state(f"{name}: {_state(endpoint)}")
                time.sleep(pause_s)  # SageMaker tells nobody when a state changes
                pause_s = min(pause_s * 1.5, _LAST_LOOK_S)
        raise ToolkitError(
            f"{name} is still {endpoint.status if endpoint else 'not there'} after "
            f"{duration(self.timeout_s)}. AWS goes on with it: run the command again to go on waiting, "
            f"longer with --timeout; `mmekit status {name}` shows how far it is."
        )

    def _what_happened(self, endpoint: Endpoint, wait: Wait, since_ms: int) -> str:
        reason = endpoint.failure_reason or "SageMaker gives no reason"
        name = endpoint.name
        if endpoint.status == "InService":
            text = (
                f"SageMaker rolled the update of {name} back: it is in service as it was before "
                f"({endpoint.config_name}). Reason: {reason}"
            )
            advice = (
                "Mend what the reason names and run `mmekit update` again. What this update created is kept; "
                f"`mmekit delete {name} --unused` removes it."
            )
        else:
            text = f"the endpoint {name} is {endpoint.status}. Reason: {reason}"
            advice = (
                f"Mend what the reason names and run `mmekit deploy` again, which replaces a Failed "
                f"endpoint, or `mmekit delete {name}`."
            )
        return "\n".join([text, *log_tail.shown(self.aws, name, since_ms=since_ms), advice])


def _is_stale(endpoint: Endpoint | None, before: Described | None) -> bool:
    """Say whether a look may show what was there before the change."""
    if endpoint is None or before is None:
        return endpoint is None and before is None
    return bool(endpoint.described["LastModifiedTime"] == before["LastModifiedTime"])


def _has(endpoint: Endpoint, wait: Wait) -> bool:
    """Say whether an endpoint in service is what a step wanted."""
    if wait.config is not None and endpoint.config_name != wait.config:
        return False
    return all(
        there.get(variant, value) == value
        for there, wanted in ((endpoint.counts, wait.counts), (endpoint.weights, wait.weights))
        for variant, value in wanted.items()
    )


def _state(endpoint: Endpoint | None) -> str:
    if endpoint is None:
        return "not there"
    variants: list[dict[str, Any]] = endpoint.described.get("ProductionVariants", [])
    stages = [
        f"{variant['VariantName']} {variant['VariantStatus'][0]['Status']}"
        for variant in variants
        if variant.get("VariantStatus")
    ]
    return f"{endpoint.status} ({', '.join(stages)})" if stages else endpoint.status
