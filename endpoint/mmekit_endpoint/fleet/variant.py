"""A production variant: its instances, which of them takes a call, and their number."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

from mmekit_endpoint.definitions import VariantSpec, VariantState
from mmekit_endpoint.errors import LaunchFailed, ServiceUnavailable
from mmekit_endpoint.fleet.call import Call
from mmekit_endpoint.fleet.instance import Instance, Surroundings
from mmekit_endpoint.fleet.router import place
from mmekit_endpoint.fleet.together import together
from mmekit_endpoint.fleet.views import VariantView
from mmekit_endpoint.telemetry.statistics import VariantStatistics

#: Pauses before an instance that ended is replaced, in seconds: none for the first, the last is repeated.
_PAUSES_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)

#: No call has longer (InvokeEndpointAsync: InvocationTimeoutSeconds), in seconds.
LONGEST_CALL_S = 3600.0

#: An instance that served for so long ends a row of failures, in seconds.
_STEADY_S = 60.0


class Variant:
    """The fleet of one variant. ``changed`` is told when the number of its instances has changed."""

    def __init__(
        self,
        surroundings: Surroundings,
        endpoint_name: str,
        region: str,
        spec: VariantSpec,
        statistics: VariantStatistics,
        changed: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.weight = spec.weight
        self.desired_count = spec.instance_count
        self.statistics = statistics
        self._surroundings = surroundings
        self._endpoint_name = endpoint_name
        self._region = region
        self._changed = changed
        self._instances: list[Instance] = []
        self._serving: list[Instance] = []
        self._starting = 0
        self._failures = 0
        self._last_failure = 0.0
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    # --- instances -----------------------------------------------------------------------------

    async def start(self) -> None:
        """Start all instances. Raises LaunchFailed when one does not start; all are ended then."""
        try:
            await self._grow()
        except BaseException:
            await self.stop(0)
            raise

    async def scale(self, count: int) -> None:
        """Change the number of instances. Raises LaunchFailed; those that were there stay."""
        self.desired_count = count
        surplus = len(self._serving) - count
        if surplus > 0:
            # Those that hold the fewest models are missed least.
            leaving = sorted(self._serving, key=lambda instance: len(instance.calls.models))[:surplus]
            for instance in leaving:
                self._serving.remove(instance)
            self._changed()
            await asyncio.gather(*(self._retire(instance, LONGEST_CALL_S) for instance in leaving))
        else:
            await self._grow()

    async def stop(self, drain_s: float) -> None:
        """Take no more calls, let those that run end for ``drain_s``, and end all instances."""
        self._stopping = True
        self._serving.clear()
        replacing = list(self._tasks)
        for task in replacing:
            task.cancel()
        await asyncio.gather(*replacing, return_exceptions=True)
        await asyncio.gather(*(self._retire(instance, drain_s) for instance in list(self._instances)))

    async def _grow(self) -> None:
        """Start what is missing; instances that start already count."""
        await together(
            self._launch() for _ in range(self.desired_count - len(self._serving) - self._starting)
        )

    async def _launch(self) -> None:
        instance = Instance(
            self._surroundings,
            self._endpoint_name,
            self._region,
            self.spec,
            self.statistics,
            self._ended,
            self.invoke,
        )
        self._instances.append(instance)
        self._starting += 1
        try:
            await instance.start()
        except BaseException:
            self._instances.remove(instance)
            raise
        finally:
            self._starting -= 1
        if len(self._serving) < self.desired_count:
            self._serving.append(instance)
            self._changed()
        else:  # fewer are wanted meanwhile
            await self._retire(instance, 0)

    async def _retire(self, instance: Instance, drain_s: float) -> None:
        await instance.drain(drain_s)
        await instance.stop()
        with contextlib.suppress(ValueError):  # another has retired it meanwhile
            self._instances.remove(instance)

    def _ended(self, instance: Instance) -> None:
        """Replace an instance that is not fit for service any more."""
        if instance in self._serving:
            self._serving.remove(instance)
            self._changed()
        if not self._stopping:
            self._spawn(self._replace(instance))

    async def _replace(self, instance: Instance) -> None:
        self._spawn(self._retire(instance, 0))  # it may take its time to end
        while not self._stopping and len(self._serving) + self._starting < self.desired_count:
            if time.monotonic() - self._last_failure > _STEADY_S:
                self._failures = 0
            pause_s = _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
            self._failures += 1
            self._last_failure = time.monotonic()
            await asyncio.sleep(pause_s)
            try:
                await self._launch()
                return
            except LaunchFailed as error:
                self._surroundings.events.add(
                    "instance_not_replaced",
                    str(error),
                    endpoint=self._endpoint_name,
                    variant=self.spec.name,
                    instance=instance.id,
                )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- calls ---------------------------------------------------------------------------------

    def invoke(self, call: Call) -> None:
        """Give a call to an instance."""
        call.variant = self.spec.name
        serving = self._serving
        if len(serving) == 1:
            serving[0].calls.invoke(call)
        elif not serving:
            error = ServiceUnavailable(
                f"Variant {self.spec.name} of endpoint {self._endpoint_name} has no instance in service: "
                + (
                    "it is being stopped."
                    if self._stopping
                    else "those it had have ended and are being replaced."
                )
                + " Call again."
            )
            self.statistics.invocation(call.target, error.status, 0.0, 0.0, None)
            call.end(error)
        else:
            self._choose(serving, call.target).calls.invoke(call)

    def _choose(self, serving: list[Instance], target: str | None) -> Instance:
        if target is None:
            return min(serving, key=lambda instance: instance.calls.in_flight)
        loaded = [instance for instance in serving if instance.cache.is_loaded(target)]
        if not loaded:
            holding = [instance for instance in serving if instance.cache.holds(target)]
            if holding:
                return min(holding, key=lambda instance: instance.cache.pending(target))
            counts = {instance.id: len(instance.cache.models) for instance in serving}
            chosen = place(target, counts)
            return next(instance for instance in serving if instance.id == chosen)
        best = (
            min(loaded, key=lambda instance: instance.cache.pending(target)) if len(loaded) > 1 else loaded[0]
        )
        if (
            len(loaded) < len(serving)
            and best.cache.pending(target) >= self._surroundings.settings.hot_in_flight
        ):
            self._spread(serving, target)
        return best

    def _spread(self, serving: list[Instance], target: str) -> None:
        """Load a hot model on one more instance; calls go there when it is loaded."""
        cold = {instance.id: instance for instance in serving if not instance.cache.is_loaded(target)}
        if any(instance.cache.is_coming(target) for instance in cold.values()):
            return
        models = {name: instance.cache.model(target) for name, instance in cold.items()}
        counts = {
            name: len(instance.cache.models)
            for name, instance in cold.items()
            if models[name].failure is None
        }
        if not counts:
            return
        chosen = place(target, counts)
        if cold[chosen].cache.want(models[chosen]):
            self._surroundings.events.add(
                "model_spread",
                f"{target} is hot",
                endpoint=self._endpoint_name,
                variant=self.spec.name,
                instance=chosen,
                model=target,
            )

    def tick(self, now: float) -> None:
        """End late calls."""
        for instance in self._instances:
            instance.tick(now)

    def decay(self, now: float) -> None:
        """Unload copies of models that nobody called for a while; the one used last stays."""
        if len(self._serving) < 2 or not self.spec.container.multi_model:
            return
        oldest = now - self._surroundings.settings.copy_idle_s
        for target in {model.target for instance in self._serving for model in instance.cache.models}:
            copies = [instance for instance in self._serving if instance.cache.is_loaded(target)]
            if len(copies) < 2:
                continue
            idle = {instance: instance.cache.idle_since(target) for instance in copies}
            used = [instance for instance in copies if (since := idle[instance]) is None or since > oldest]
            keep = used or [max(copies, key=lambda instance: idle[instance] or 0.0)]
            for instance in copies:
                if instance not in keep:
                    instance.cache.drop(target)

    # --- what can be seen ------------------------------------------------------------------------

    def state(self) -> VariantState:
        """Return what DescribeEndpoint says of it."""
        images = (
            instance.running.resolved_image for instance in self._serving if instance.running is not None
        )
        return VariantState(
            name=self.spec.name,
            current_weight=self.weight,
            desired_weight=self.weight,
            current_count=len(self._serving),
            desired_count=self.desired_count,
            image=self.spec.container.image,
            resolved_image=next((image for image in images if image), None),
        )

    def view(self) -> VariantView:
        """Return what can be seen of it and its instances."""
        return VariantView(
            name=self.spec.name,
            model_name=self.spec.model_name,
            instance_type=self.spec.instance_type,
            weight=self.weight,
            desired_count=self.desired_count,
            multi_model=self.spec.container.multi_model,
            instances=[instance.view() for instance in self._instances],
        )
