"""How pytest's options are named; apart, since every session of pytest imports it."""

from __future__ import annotations


def names(name: str) -> tuple[str, str]:
    """Return an option's name, and that of its line in pytest's configuration file."""
    return f"--mme-contract{name}", f"mme_contract{name}".replace("-", "_")
