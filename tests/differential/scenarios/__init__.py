"""What is sent to both engines, by topic. Each module has ``SCENARIOS``."""

from __future__ import annotations

from tests.differential.exchange import Scenario
from tests.differential.scenarios import handlers, inputs, models, outputs, surface, workers

SCENARIOS: tuple[Scenario, ...] = (
    *surface.SCENARIOS,
    *models.SCENARIOS,
    *workers.SCENARIOS,
    *inputs.SCENARIOS,
    *outputs.SCENARIOS,
    *handlers.SCENARIOS,
)
