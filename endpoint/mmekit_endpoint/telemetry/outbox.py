"""Metric data on its way to CloudWatch: in batches that it takes, in order, kept while it does not answer."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

from mmekit_endpoint.telemetry.cloudwatch import Datum, Entry
from mmekit_endpoint.telemetry.refusals import is_refusal

logger = logging.getLogger(__name__)

#: PutMetricData takes so many metrics, and a body of 1 MB.
MAX_BATCH = 1000
_MAX_BATCH_BYTES = 1_000_000

#: What a datum's names, dimensions and numbers take at most, and each of its values with its count.
_DATUM_BYTES = 600
_VALUE_BYTES = 40

#: Data that waits for one region; more than an hour of ten variants. Then the oldest is dropped.
MAX_WAITING = 50_000


class Outbox:
    """Takes data in the event loop and sends it in a thread.

    ``client`` makes a boto3 client of (region, service). A batch whose answer was lost arrives twice.
    """

    def __init__(self, client: Callable[[str, str], Any]) -> None:
        self._client = client
        #: By region and namespace.
        self._waiting: defaultdict[tuple[str, str], deque[Datum]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._failing = False

    def put(self, region: str, entries: Iterable[Entry]) -> None:
        """Take data for a region; it does not wait."""
        with self._lock:
            for entry in entries:
                waiting = self._waiting[region, entry.namespace]
                waiting.append(entry.datum)
                if len(waiting) > MAX_WAITING:
                    waiting.popleft()

    def send(self, enough: threading.Event) -> None:
        """Send what waits, until ``enough`` is set or CloudWatch does not answer; nothing is raised."""
        with self._sending:
            for region, namespace in list(self._waiting):
                while not enough.is_set() and (batch := self._take(region, namespace)):
                    if not self._send(region, namespace, batch):
                        return

    def _take(self, region: str, namespace: str) -> list[Datum]:
        batch: list[Datum] = []
        size = 0
        with self._lock:
            waiting = self._waiting[region, namespace]
            while waiting and len(batch) < MAX_BATCH:
                size += _DATUM_BYTES + _VALUE_BYTES * len(waiting[0].get("Values", ()))
                if size > _MAX_BATCH_BYTES:
                    break
                batch.append(waiting.popleft())
        return batch

    def _send(self, region: str, namespace: str, batch: list[Datum]) -> bool:
        """Send a batch; return whether going on makes sense."""
        try:
            self._client(region, "cloudwatch").put_metric_data(Namespace=namespace, MetricData=batch)
        except Exception as error:  # noqa: BLE001 - the border of a thread: the service goes on
            if is_refusal(error):
                logger.error("CloudWatch refused %s metrics of %s: %s", len(batch), namespace, error)
                return True
            with self._lock:
                self._waiting[region, namespace].extendleft(reversed(batch))
            if not self._failing:
                self._failing = True
                logger.warning("Metrics cannot be published now and are kept for later: %s", error)
            return False
        if self._failing:
            self._failing = False
            logger.warning("Metrics are published again")
        return True
