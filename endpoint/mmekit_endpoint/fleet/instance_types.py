"""What SageMaker's instance types offer: vCPUs, memory, GPUs, local disk.

All types that an endpoint configuration may name (botocore: ProductionVariantInstanceType). The figures are
those of EC2's DescribeInstanceTypes for the type without ``ml.``. A family has its memory per vCPU and its
sizes say how many vCPUs there are; what does not follow that rule is listed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from mmekit_endpoint.fleet.launchers import Resources

GIB = 1024**3
#: Disks are sold in decimal gigabytes.
GB = 1000**3

#: Volume of an instance without local disks where the endpoint configuration names no size. AWS publishes
#: none ("larger by default" in MultiModel mode); 30 GiB is ours.
DEFAULT_VOLUME_BYTES = 30 * GIB


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One instance type. ``gpus`` counts NVIDIA's; Inferentia, Trainium and Gaudi are none."""

    name: str
    vcpus: int
    memory_bytes: int
    gpus: int
    #: For models: the local NVMe disks together where there are some, else DEFAULT_VOLUME_BYTES.
    volume_bytes: int


#: Family → GiB of memory per vCPU, sizes.
_FAMILIES: dict[str, tuple[float, str]] = {
    # general purpose
    "t2": (4, "medium large xlarge 2xlarge"),
    "m4": (4, "xlarge 2xlarge 4xlarge 10xlarge 16xlarge"),
    "m5": (4, "large xlarge 2xlarge 4xlarge 12xlarge 24xlarge"),
    "m5d": (4, "large xlarge 2xlarge 4xlarge 12xlarge 24xlarge"),
    "m6g": (4, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge"),
    "m6gd": (4, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge"),
    "m6i": (4, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge"),
    "m7i": (4, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    "m8g": (4, "medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    # compute
    "c4": (1.875, "large xlarge 2xlarge 4xlarge 8xlarge"),
    "c5": (2, "large xlarge 2xlarge 4xlarge 9xlarge 18xlarge"),
    "c5d": (2, "large xlarge 2xlarge 4xlarge 9xlarge 18xlarge"),
    "c6g": (2, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge"),
    "c6gd": (2, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge"),
    "c6gn": (2, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge"),
    "c6i": (2, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge"),
    "c6in": (2, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge"),
    "c7g": (2, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge"),
    "c7i": (2, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    "c8g": (2, "medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    # memory
    "r5": (8, "large xlarge 2xlarge 4xlarge 12xlarge 24xlarge"),
    "r5d": (8, "large xlarge 2xlarge 4xlarge 12xlarge 24xlarge"),
    "r6g": (8, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge"),
    "r6gd": (8, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge"),
    "r6i": (8, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge"),
    "r7gd": (8, "medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge"),
    "r7i": (8, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    "r8g": (8, "medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    # NVIDIA GPUs
    "g4dn": (4, "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge"),
    "g5": (4, "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    "g6": (4, "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    "g6e": (8, "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    "g7": (4, "2xlarge 4xlarge 8xlarge 12xlarge 24xlarge 48xlarge"),
    "g7e": (8, "2xlarge 4xlarge 8xlarge 12xlarge 24xlarge 48xlarge"),
    "p2": (15.25, "xlarge 8xlarge 16xlarge"),
    "p3": (7.625, "2xlarge 8xlarge 16xlarge"),
    "p4d": (12, "24xlarge"),
    "p4de": (12, "24xlarge"),
    "p5": (16, "4xlarge 48xlarge"),
    "p5e": (16, "48xlarge"),
    "p5en": (16, "48xlarge"),
    "p6-b200": (16, "48xlarge"),
    "p6-b300": (16, "48xlarge"),
    "p6e-gb200": (16, "36xlarge"),
    # AWS's own accelerators, Habana's
    "inf1": (2, "xlarge 2xlarge 6xlarge 24xlarge"),
    "inf2": (4, "xlarge 8xlarge 24xlarge 48xlarge"),
    "trn1": (4, "2xlarge 32xlarge"),
    "trn1n": (4, "32xlarge"),
    "trn2": (4, "48xlarge"),
    "dl1": (8, "24xlarge"),
}

#: vCPUs that do not follow from the size: medium 1, large 2, xlarge 4, Nxlarge 4 N.
_VCPUS = {"t2.medium": 2, "c4.8xlarge": 36}

#: GiB of memory that do not follow from the family.
_MEMORY_GIB = {
    "t2.medium": 4,
    "c4.8xlarge": 60,
    "g7e.12xlarge": 512,
    "g7e.24xlarge": 1024,
    "g7e.48xlarge": 2048,
    "p2.16xlarge": 732,
    "p5.48xlarge": 2048,
    "p5e.48xlarge": 2048,
    "p5en.48xlarge": 2048,
    "p6-b200.48xlarge": 2048,
    "p6-b300.48xlarge": 4096,
    "p6e-gb200.36xlarge": 960,
    "trn2.48xlarge": 2048,
}

#: Family → GPUs of its sizes with more than one; the others have one. Families that are not here have none.
_GPUS: dict[str, dict[str, int]] = {
    "g4dn": {"12xlarge": 4},
    "g5": {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8},
    "g6": {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8},
    "g6e": {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8},
    "g7": {"12xlarge": 2, "24xlarge": 4, "48xlarge": 8},
    "g7e": {"12xlarge": 2, "24xlarge": 4, "48xlarge": 8},
    "p2": {"8xlarge": 8, "16xlarge": 16},
    "p3": {"8xlarge": 4, "16xlarge": 8},
    "p4d": {"24xlarge": 8},
    "p4de": {"24xlarge": 8},
    "p5": {"48xlarge": 8},
    "p5e": {"48xlarge": 8},
    "p5en": {"48xlarge": 8},
    "p6-b200": {"48xlarge": 8},
    "p6-b300": {"48xlarge": 8},
    "p6e-gb200": {"36xlarge": 4},
}

#: GB of local disk by size, of families that share them.
_GRAVITON_DISKS = {
    "medium": 59,
    "large": 118,
    "xlarge": 237,
    "2xlarge": 474,
    "4xlarge": 950,
    "8xlarge": 1900,
    "12xlarge": 2850,
    "16xlarge": 3800,
}
_INTEL_DISKS = {
    "large": 75,
    "xlarge": 150,
    "2xlarge": 300,
    "4xlarge": 600,
    "12xlarge": 1800,
    "24xlarge": 3600,
}
_G5_DISKS = {
    "xlarge": 250,
    "2xlarge": 450,
    "4xlarge": 600,
    "8xlarge": 900,
    "12xlarge": 3800,
    "16xlarge": 1900,
    "24xlarge": 3800,
    "48xlarge": 7600,
}

#: Family → GB of local disk by size. Families that are not here have none.
_DISKS_GB: dict[str, dict[str, int]] = {
    "m5d": _INTEL_DISKS,
    "r5d": _INTEL_DISKS,
    "c5d": {"large": 50, "xlarge": 100, "2xlarge": 200, "4xlarge": 400, "9xlarge": 900, "18xlarge": 1800},
    "m6gd": _GRAVITON_DISKS,
    "c6gd": _GRAVITON_DISKS,
    "r6gd": _GRAVITON_DISKS,
    "r7gd": _GRAVITON_DISKS,
    "g4dn": {"xlarge": 125, "2xlarge": 225, "4xlarge": 225, "8xlarge": 900, "12xlarge": 900, "16xlarge": 900},
    "g5": _G5_DISKS,
    "g6": _G5_DISKS | {"12xlarge": 3760, "16xlarge": 1880, "24xlarge": 3760, "48xlarge": 7520},
    "g6e": _G5_DISKS,
    "g7": {
        "2xlarge": 440,
        "4xlarge": 875,
        "8xlarge": 930,
        "12xlarge": 1900,
        "24xlarge": 3800,
        "48xlarge": 7600,
    },
    "g7e": {
        "2xlarge": 1900,
        "4xlarge": 1900,
        "8xlarge": 1900,
        "12xlarge": 3800,
        "24xlarge": 7600,
        "48xlarge": 15200,
    },
    "p4d": {"24xlarge": 8000},
    "p4de": {"24xlarge": 8000},
    "p5": {"4xlarge": 3800, "48xlarge": 30400},
    "p5e": {"48xlarge": 30400},
    "p5en": {"48xlarge": 30400},
    "p6-b200": {"48xlarge": 30400},
    "p6-b300": {"48xlarge": 30400},
    "p6e-gb200": {"36xlarge": 22500},
    "trn1": {"2xlarge": 474, "32xlarge": 7600},
    "trn1n": {"32xlarge": 7600},
    "trn2": {"48xlarge": 7600},
    "dl1": {"24xlarge": 4000},
}


def instance_type(name: str) -> InstanceType:
    """Return the type of a name such as ``ml.m5.large``. Raises KeyError for one that is not known."""
    prefix, _, ec2_name = name.partition(".")
    family, _, size = ec2_name.partition(".")
    if prefix != "ml" or family not in _FAMILIES or size not in _FAMILIES[family][1].split():
        raise KeyError(name)
    vcpus = _VCPUS.get(ec2_name) or _vcpus(size)
    memory_gib = _MEMORY_GIB.get(ec2_name) or _FAMILIES[family][0] * vcpus
    disks_gb = _DISKS_GB.get(family, {}).get(size)
    return InstanceType(
        name,
        vcpus,
        int(memory_gib * GIB),
        gpus=_GPUS[family].get(size, 1) if family in _GPUS else 0,
        volume_bytes=DEFAULT_VOLUME_BYTES if disks_gb is None else disks_gb * GB,
    )


def _vcpus(size: str) -> int:
    small = {"medium": 1, "large": 2, "xlarge": 4}
    return small.get(size) or 4 * int(size.removesuffix("xlarge"))


def resources(kind: InstanceType) -> Resources:
    """Return what a container of that type gets here: CPUs and memory no more than this machine has.

    GPUs are the type's: whether there are as many is for the launcher to find out.
    """
    return Resources(min(kind.vcpus, _machine_cpus()), min(kind.memory_bytes, _machine_memory()), kind.gpus)


def _machine_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _machine_memory() -> int:
    """Return the machine's memory or, where this service runs in a container, the container's limit."""
    found: int = psutil.virtual_memory().total
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # else "max"
            found = min(found, int(text))
    return found
