"""Makes the endpoints what the database says is wanted, and writes back how far they are.

One task an endpoint works through its changes, one after the other. The state machine is SageMaker's
(EndpointStatus in botocore's model): Creating → InService or Failed; Updating → InService, also when the
new fleet does not start, with the reason; SystemUpdating, when the service was started → InService or
OutOfService.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mmekit_endpoint.database import Database
from mmekit_endpoint.definitions import CREATE, DELETE, SCALE, START, UPDATE, EndpointRow, EndpointSpec
from mmekit_endpoint.errors import EndpointError, LaunchFailed
from mmekit_endpoint.fleet.endpoint import Endpoint
from mmekit_endpoint.fleet.instance import Surroundings
from mmekit_endpoint.fleet.variant import LONGEST_CALL_S
from mmekit_endpoint.fleet.views import EndpointView
from mmekit_endpoint.telemetry.statistics import Statistics

logger = logging.getLogger(__name__)

#: Between two looks at the database's version: a look costs microseconds.
_PERIOD_S = 0.05

#: Between two tries to write the state, in seconds.
_RETRY_S = 1.0

#: For how long calls may go on when their endpoint is deleted, or the service stops.
_LAST_CALLS_S = 10.0

#: DescribeEndpoint's FailureReason has at most so many characters (botocore: FailureReason).
_REASON_CHARACTERS = 1024


class Reconciler:
    """The running endpoints by name, and the tasks that change them."""

    def __init__(self, database: Database, surroundings: Surroundings, statistics: Statistics) -> None:
        #: Endpoints that take calls.
        self.endpoints: dict[str, Endpoint] = {}
        self._database = database
        self._surroundings = surroundings
        self._statistics = statistics
        self._rows: dict[str, EndpointRow] = {}
        #: Fleets that were replaced and have calls yet.
        self._retiring: set[Endpoint] = set()
        #: The generation that is worked on, or was last.
        self._seen: dict[str, int] = {}
        self._work: dict[str, asyncio.Task[None]] = {}
        self._writes: set[asyncio.Task[Any]] = set()
        self._writer = ThreadPoolExecutor(1, "state")

    async def run(self) -> None:
        """Watch the database until cancelled."""
        version = -1
        while True:
            newest = self._database.data_version()
            if newest != version:
                version = newest
                rows = await asyncio.to_thread(self._database.endpoints)
                if self._database.data_version() != version:
                    continue  # something was written meanwhile: what was read may be over
                self._rows = {row.name: row for row in rows}
                for row in rows:
                    self._begin(row)
            await asyncio.sleep(_PERIOD_S)

    async def stop(self) -> None:
        """End all changes and all endpoints; what is wanted stays in the database for the next start."""
        work = list(self._work.values())
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        self._retiring.update(self.endpoints.values())
        self.endpoints.clear()
        await asyncio.gather(*(endpoint.stop(_LAST_CALLS_S) for endpoint in list(self._retiring)))
        await asyncio.gather(*self._writes, return_exceptions=True)
        self._writer.shutdown()

    @property
    def fleets(self) -> list[Endpoint]:
        """All that have calls: what serves, and what was replaced or deleted and is ending."""
        return [*self.endpoints.values(), *self._retiring]

    def views(self) -> list[EndpointView]:
        """Return what can be seen of all endpoints, those that do not serve included."""
        views = []
        for row in self._rows.values():
            endpoint = self.endpoints.get(row.name)
            if endpoint is not None:
                views.append(endpoint.view(row.arn, row.status, row.failure_reason))
            else:
                spec = row.spec or row.target
                views.append(
                    EndpointView(
                        name=row.name,
                        arn=row.arn,
                        region=row.region,
                        status=row.status,
                        failure_reason=row.failure_reason,
                        config_name=spec.config_name if spec else "",
                        metrics_period_s=None,
                        variants=[],
                    )
                )
        return views

    def row(self, name: str) -> EndpointRow | None:
        """Return an endpoint's row as it was read last."""
        return self._rows.get(name)

    # --- changes -------------------------------------------------------------------------------

    def _begin(self, row: EndpointRow) -> None:
        if row.change is None or self._seen.get(row.name) == row.generation:
            return
        self._seen[row.name] = row.generation
        before = self._work.get(row.name)
        task = asyncio.get_running_loop().create_task(self._change(row, before))
        self._work[row.name] = task

    async def _change(self, row: EndpointRow, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        steps = {
            CREATE: self._create,
            START: self._start,
            UPDATE: self._update,
            SCALE: self._scale,
            DELETE: self._delete,
        }
        self._event(row, "endpoint_change", f"{row.change}: {row.status}")
        try:
            await steps[row.change or ""](row)
        except Exception as error:  # the border of a task: the endpoint must not stay in change
            logger.exception("The change %s of endpoint %s failed", row.change, row.name)
            reason = f"The local endpoint could not finish {row.change}: {error!r}"
            await self._settle(row, "Failed", reason, row.spec)

    async def _create(self, row: EndpointRow) -> None:
        if reason := await self._serve(row, row.target):
            await self._settle(row, "Failed", reason, row.target)
        else:
            await self._settle(row, "InService", None, row.target)

    async def _start(self, row: EndpointRow) -> None:
        if reason := await self._serve(row, row.target):
            await self._settle(row, "OutOfService", reason, row.target)
        else:
            await self._settle(row, "InService", row.failure_reason, row.target)

    async def _update(self, row: EndpointRow) -> None:
        """New fleet first, then the switch; what serves goes on serving if that fails (blue/green)."""
        reason = await self._serve(row, row.target)
        if not reason:
            await self._settle(row, "InService", None, row.target)
            return
        if row.name not in self.endpoints and row.spec is not None:  # the service was started in an update
            again = await self._serve(row, row.spec)
            if again:
                await self._settle(row, "OutOfService", again, row.spec)
                return
        status = "InService" if row.name in self.endpoints else "OutOfService"
        await self._settle(row, status, reason, row.spec)

    async def _serve(self, row: EndpointRow, spec: EndpointSpec | None) -> str:
        """Start a fleet and put it in the place of the one that serves; return why not, or ""."""
        if spec is None:
            return "There is no definition of what to run."
        try:
            endpoint = Endpoint(
                self._surroundings, self._statistics, row.name, row.region, spec, self._reporter(row.name)
            )
            await endpoint.start()
        except (LaunchFailed, EndpointError) as error:
            return str(error)[:_REASON_CHARACTERS]
        old = self.endpoints.get(row.name)
        self.endpoints[row.name] = endpoint
        if old is not None:
            # Answered before the old fleet has ended: its last calls have all their time.
            self._keep(self._retire(old, LONGEST_CALL_S))
        return ""

    async def _retire(self, endpoint: Endpoint, drain_s: float) -> None:
        self._retiring.add(endpoint)
        await endpoint.stop(drain_s)
        self._retiring.discard(endpoint)

    async def _scale(self, row: EndpointRow) -> None:
        endpoint = self.endpoints.get(row.name)
        if endpoint is None:  # the service was started in a change of scale
            await self._update(row)
            return
        assert row.target is not None
        before = endpoint.spec
        try:
            await endpoint.scale(row.target)
        except LaunchFailed as error:
            await self._write(self._database.progress, row.name, row.generation, status="RollingBack")
            with contextlib.suppress(LaunchFailed):  # an instance has ended meanwhile, and is being replaced
                await endpoint.scale(before)
            await self._settle(row, "InService", str(error)[:_REASON_CHARACTERS], before)
        else:
            await self._settle(row, "InService", None, row.target)

    async def _delete(self, row: EndpointRow) -> None:
        endpoint = self.endpoints.pop(row.name, None)
        if endpoint is not None:
            await self._retire(endpoint, _LAST_CALLS_S)
        self._statistics.forget(row.name)
        # Who was answered DeleteEndpoint and calls now is not told what the last look at the database saw.
        # That may be before this task knows that it is written; a look meanwhile may see it once more.
        self._rows.pop(row.name, None)
        await self._write(self._database.forget, row.name, row.generation)
        self._rows.pop(row.name, None)
        self._event(row, "endpoint_deleted", "")
        if self._work.get(row.name) is asyncio.current_task():  # else it has a successor
            del self._work[row.name]

    async def _settle(
        self, row: EndpointRow, status: str, reason: str | None, spec: EndpointSpec | None
    ) -> None:
        endpoint = self.endpoints.get(row.name)
        await self._write(
            self._database.settle,
            row.name,
            row.generation,
            status=status,
            failure_reason=reason,
            spec=spec,
            variants=endpoint.states() if endpoint is not None else (),
        )
        self._event(row, f"endpoint_{status.lower()}", reason or "")

    # --- writing -------------------------------------------------------------------------------

    def _reporter(self, name: str) -> Callable[[], None]:
        """Return what a fleet calls when the number of its instances has changed."""

        def report() -> None:
            endpoint, generation = self.endpoints.get(name), self._seen.get(name)
            if endpoint is not None and generation is not None:
                self._keep(self._write(self._database.progress, name, generation, variants=endpoint.states()))

        return report

    async def _write(self, step: Callable[..., bool], *arguments: Any, **named: Any) -> bool:
        # One thread: what was known first is written first.
        work = functools.partial(step, *arguments, **named)
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._writer, work)
            except sqlite3.OperationalError as error:  # a full disk, in the first place
                logger.error("The state cannot be written, trying again: %s", error)
                await asyncio.sleep(_RETRY_S)

    def _keep(self, work: Any) -> None:  # any coroutine
        task = asyncio.get_running_loop().create_task(work)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    def _event(self, row: EndpointRow, kind: str, text: str) -> None:
        self._surroundings.events.add(kind, text, endpoint=row.name)
