"""What can be seen of the fleet: plain values for the admin routes, Prometheus, CloudWatch and the tables."""

from __future__ import annotations

import msgspec


class ModelView(msgspec.Struct, frozen=True):
    """One model on one instance."""

    target_model: str
    #: What the container knows it by.
    model_name: str
    #: downloading, on disk, loading, loaded, unloading, deleting, failed
    state: str
    #: Unpacked bytes; 0 while unknown.
    disk_bytes: int
    in_flight: int
    waiting: int
    #: When its last call or its load ended, in seconds since the epoch; None before the first load.
    last_used: float | None
    #: Why it is "failed".
    reason: str | None = None


class InstanceView(msgspec.Struct, frozen=True):
    """One instance. Shares of capacity are percent: 0 to 100, CPU and GPU 0 to 100 × number."""

    instance_id: str
    #: starting, in service, unhealthy, stopping
    state: str
    address: str
    memory_bytes: int
    memory_limit_bytes: int
    disk_bytes: int
    volume_bytes: int
    cpu_percent: float
    in_flight: int
    models: list[ModelView]
    log: str
    #: Seconds since the epoch.
    started: float
    gpu_percent: float | None = None
    gpu_memory_percent: float | None = None

    @property
    def loaded_count(self) -> int:
        """How many models are in the container's memory."""
        return sum(model.state in ("loaded", "unloading") for model in self.models)


class VariantView(msgspec.Struct, frozen=True):
    """One variant and its fleet."""

    name: str
    model_name: str
    instance_type: str
    weight: float
    desired_count: int
    multi_model: bool
    instances: list[InstanceView]


class EndpointView(msgspec.Struct, frozen=True):
    """One endpoint."""

    name: str
    arn: str
    region: str
    status: str
    failure_reason: str | None
    config_name: str
    metrics_period_s: int | None
    variants: list[VariantView]
