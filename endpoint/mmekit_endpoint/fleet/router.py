"""Which instance takes a call; pure decisions.

AWS says that calls go to an instance that has the model, and that models under heavy load are given to
further instances ("How multi-model endpoints work"); the rest is ours: where a model goes first is rendezvous
hashing with bounded loads, so that each instance has its share and few models move when instances come or go.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping

#: An instance gets no new model while it has this many times the average of all.
_BOUND = 1.25


def place(target: str, counts: Mapping[str, int]) -> str:
    """Return the instance that a model goes to, of ``counts``: instance → models it has. Not empty."""
    bound = math.ceil(_BOUND * (sum(counts.values()) + 1) / len(counts))
    ranked = rank(target, counts)
    return next((instance for instance in ranked if counts[instance] < bound), ranked[0])


def rank(target: str, instances: Collection[str]) -> list[str]:
    """Return the instances in the order in which a model prefers them: the same for the same instances."""

    def weight(instance: str) -> bytes:
        return hashlib.blake2b(f"{instance}\0{target}".encode(), digest_size=8).digest()

    return sorted(instances, key=weight, reverse=True)
