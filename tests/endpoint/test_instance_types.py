"""Instance types: all that an endpoint configuration may name, with the figures that AWS publishes."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import moto
import psutil
import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel

from mmekit_endpoint.fleet.instance_types import DEFAULT_VOLUME_BYTES, GB, GIB, instance_type, resources

#: Without a session, which would want the profile that this machine may name.
_MODEL = ServiceModel(Loader().load_service_model("sagemaker", "service-2"))
NAMES: list[str] = _MODEL.shape_for("ProductionVariantInstanceType").enum


@pytest.fixture(scope="module")
def published() -> dict[str, dict[str, Any]]:
    """EC2's DescribeInstanceTypes by name, as moto has recorded it."""
    file = Path(moto.__file__).parent / "ec2" / "resources" / "instance_types.json.gz"
    types: dict[str, dict[str, Any]] = json.loads(gzip.decompress(file.read_bytes()))
    return types


def test_every_type_that_botocore_knows_has_figures() -> None:
    assert len(NAMES) >= 277
    for name in NAMES:
        kind = instance_type(name)
        assert kind.name == name
        assert kind.vcpus >= 1
        assert kind.memory_bytes >= 2 * GIB
        assert kind.gpus >= 0
        assert kind.volume_bytes >= DEFAULT_VOLUME_BYTES


def test_figures_are_those_that_ec2_publishes(published: dict[str, dict[str, Any]]) -> None:
    checked = 0
    for name in NAMES:
        if (ec2 := published.get(name.removeprefix("ml."))) is None:
            continue  # retired, or sold as a whole rack: see the next test
        checked += 1
        kind = instance_type(name)
        gpus = sum(gpu["Count"] for gpu in ec2.get("GpuInfo", {}).get("Gpus", []))
        disks = ec2.get("InstanceStorageInfo", {}).get("TotalSizeInGB")
        assert kind.vcpus == ec2["VCpuInfo"]["DefaultVCpus"], name
        assert kind.memory_bytes == ec2["MemoryInfo"]["SizeInMiB"] * 1024**2, name
        assert kind.gpus == gpus, name
        assert kind.volume_bytes == (DEFAULT_VOLUME_BYTES if disks is None else disks * GB), name
    assert checked >= 260


@pytest.mark.parametrize(
    ("name", "vcpus", "memory_gib", "gpus", "disk_gb"),
    [
        ("ml.t2.medium", 2, 4, 0, None),
        ("ml.m5.large", 2, 8, 0, None),
        ("ml.m5d.24xlarge", 96, 384, 0, 3600),
        ("ml.c4.large", 2, 3.75, 0, None),
        ("ml.c4.8xlarge", 36, 60, 0, None),
        ("ml.c5.18xlarge", 72, 144, 0, None),
        ("ml.r5.2xlarge", 8, 64, 0, None),
        ("ml.r7gd.medium", 1, 8, 0, 59),
        ("ml.g4dn.xlarge", 4, 16, 1, 125),
        ("ml.g5.12xlarge", 48, 192, 4, 3800),
        ("ml.g5.16xlarge", 64, 256, 1, 1900),
        ("ml.g7e.12xlarge", 48, 512, 2, 3800),
        ("ml.p2.xlarge", 4, 61, 1, None),
        ("ml.p2.16xlarge", 64, 732, 16, None),
        ("ml.p3.2xlarge", 8, 61, 1, None),
        ("ml.p3.8xlarge", 32, 244, 4, None),
        ("ml.p5.4xlarge", 16, 256, 1, 3800),
        ("ml.p6e-gb200.36xlarge", 144, 960, 4, 22500),
        ("ml.inf2.48xlarge", 192, 768, 0, None),
        ("ml.dl1.24xlarge", 96, 768, 0, 4000),
    ],
)
def test_known_figures(name: str, vcpus: int, memory_gib: float, gpus: int, disk_gb: int | None) -> None:
    kind = instance_type(name)
    volume = DEFAULT_VOLUME_BYTES if disk_gb is None else disk_gb * GB
    found = (kind.vcpus, kind.memory_bytes / GIB, kind.gpus, kind.volume_bytes)
    assert found == (vcpus, memory_gib, gpus, volume)


@pytest.mark.parametrize(
    "name", ["m5.large", "ml.m5", "ml.m5.3xlarge", "ml.x9.large", "local", "", "ml..large"]
)
def test_an_unknown_type_is_a_key_error(name: str) -> None:
    with pytest.raises(KeyError):
        instance_type(name)


def test_resources_are_never_more_than_this_machine_has() -> None:
    largest = resources(instance_type("ml.p6-b300.48xlarge"))
    assert largest.cpus <= len(os.sched_getaffinity(0))
    assert largest.memory_bytes <= psutil.virtual_memory().total
    assert largest.gpus == 8


def test_resources_of_a_small_type_are_the_types_own() -> None:
    small = resources(instance_type("ml.c8g.medium"))
    assert (small.cpus, small.memory_bytes, small.gpus) == (1, 2 * GIB, 0)
