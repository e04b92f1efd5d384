"""Answers with what handlers import of MMS."""

import mms
from mms.context import Context
from mms.metrics.dimension import Dimension
from mms.metrics.metric import Metric
from mms.metrics.metrics_store import MetricsStore
from mms.metrics.unit import Units
from mms.service import PredictionException


def handle(data, context):
    if data is None:
        return None
    return [
        {
            "version": mms.__version__,
            "is_context": isinstance(context, Context),
            "is_store": isinstance(context.metrics, MetricsStore),
            "dimension": str(Dimension("a", "b")),
            "units": sorted(Units().units.values()),
            "metric": Metric("a", 1, "ms", []).unit,
            "exception": str(PredictionException("a", 404)),
        }
    ]
