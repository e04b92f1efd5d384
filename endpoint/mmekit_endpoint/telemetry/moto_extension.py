"""What the control plane's process adds to moto. The service's own process never imports this, nor moto."""

from __future__ import annotations

from mmekit_endpoint.telemetry import moto_logs, moto_metrics


def install() -> None:
    """Bound moto's metrics and logs, and read metrics as AWS does; before the first request, once or more."""
    moto_metrics.install()
    moto_logs.install()
