"""One endpoint: its variants, and which of them takes a call."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from mmekit_endpoint.definitions import EndpointSpec, VariantState
from mmekit_endpoint.errors import ValidationError
from mmekit_endpoint.fleet.call import Call
from mmekit_endpoint.fleet.instance import Surroundings
from mmekit_endpoint.fleet.together import together
from mmekit_endpoint.fleet.variant import Variant
from mmekit_endpoint.fleet.views import EndpointView
from mmekit_endpoint.telemetry.statistics import Statistics


class Endpoint:
    """The variants that run one EndpointSpec. ``changed`` is told of changes of their fleets."""

    def __init__(
        self,
        surroundings: Surroundings,
        statistics: Statistics,
        name: str,
        region: str,
        spec: EndpointSpec,
        changed: Callable[[], None],
    ) -> None:
        self.name = name
        self.region = region
        self.spec = spec
        self.multi_model = any(variant.container.multi_model for variant in spec.variants)
        self._variants = {
            variant.name: Variant(
                surroundings, name, region, variant, statistics.variant(name, variant.name), changed
            )
            for variant in spec.variants
        }
        self._weigh()

    def _weigh(self) -> None:
        weighty = [variant for variant in self._variants.values() if variant.weight > 0]
        self._choices = weighty
        self._weights = [variant.weight for variant in weighty]
        self._only = weighty[0] if len(weighty) == 1 else None

    @property
    def variants(self) -> list[Variant]:
        """All variants, as configured."""
        return list(self._variants.values())

    async def start(self) -> None:
        """Start all variants. Raises LaunchFailed; all are ended then."""
        try:
            await together(variant.start() for variant in self.variants)
        except BaseException:
            await self.stop(0)
            raise

    async def scale(self, spec: EndpointSpec) -> None:
        """Take over weights at once, and the numbers of instances. Raises LaunchFailed."""
        self.reweigh(spec)
        await together(self._variants[wanted.name].scale(wanted.instance_count) for wanted in spec.variants)
        self.spec = spec

    def reweigh(self, spec: EndpointSpec) -> None:
        """Take over the weights of a spec with the same variants."""
        for wanted in spec.variants:
            self._variants[wanted.name].weight = wanted.weight
        self._weigh()

    async def stop(self, drain_s: float) -> None:
        """Take no more calls, let those that run end for ``drain_s``, and end all instances."""
        await asyncio.gather(*(variant.stop(drain_s) for variant in self.variants))

    def invoke(self, call: Call, variant_name: str | None) -> None:
        """Give a call to the variant of that name, or to one by weight. Raises ValidationError."""
        variant = self._only
        if variant_name is not None:
            variant = self._variants.get(variant_name)
            if variant is None:
                raise ValidationError(
                    f"Variant {variant_name} not found for endpoint {self.name}. It has: "
                    f"{', '.join(self._variants)}."
                )
        elif variant is None:
            variant = random.choices(self._choices, self._weights)[0]
        variant.invoke(call)

    def states(self) -> tuple[VariantState, ...]:
        """Return what DescribeEndpoint says of the variants."""
        return tuple(variant.state() for variant in self.variants)

    def view(self, arn: str, status: str, failure_reason: str | None) -> EndpointView:
        """Return what can be seen of it."""
        return EndpointView(
            name=self.name,
            arn=arn,
            region=self.region,
            status=status,
            failure_reason=failure_reason,
            config_name=self.spec.config_name,
            metrics_period_s=self.spec.metrics_period_s,
            variants=[variant.view() for variant in self.variants],
        )
