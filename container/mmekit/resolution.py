"""From options, variables and config.properties to a Config; where each value came from, what to warn of.

Called at the edge, by the commands; nothing else reads the environment for settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mmekit.config import Config
from mmekit.parsers import UNSET
from mmekit.settings import SAME, Keys, Origin, Source, read, settings_of


@dataclass(frozen=True)
class Resolution:
    """A Config, where each value came from (by field name), and what to warn of."""

    config: Config
    sources: dict[str, Source]
    warnings: list[str]


def resolve(
    environ: Mapping[str, str],
    overrides: Mapping[str, str] | None = None,
    properties: Keys | None = None,
    mms_mode: bool = False,
) -> Resolution:
    """Build a Config from variables, ``overrides`` (option texts by field name) and MMS's ``properties``.

    In ``mms_mode`` MMS's defaults count. Raises ConfigError as ``settings.read`` does.
    """
    declared_settings = settings_of(Config)
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for name, declared in declared_settings.items():
        value, sources[name] = read(name, declared, overrides or {}, environ, properties)
        if value is not UNSET:
            values[name] = value
        elif mms_mode and declared.mms_default is not SAME:
            values[name] = declared.mms_default
    known = [key for declared in declared_settings.values() for key, _ in declared.keys]
    warnings = properties.warnings(known) if properties else []
    config, told = _with_addresses(Config(mms_mode=mms_mode, **values), sources)
    return Resolution(config, sources, [*warnings, *told, *_without_effect(config, sources)])


def _without_effect(config: Config, sources: Mapping[str, Source]) -> Iterator[str]:
    """Yield what to tell of values that may be meant otherwise: nothing fails for them."""
    store, source = config.model_store, sources["model_store"]
    if store is not None and source.origin is not Origin.DEFAULT and not store.is_dir():
        yield f"{source.name}={store}: there is no such folder, so no models will be found there."
    if not any(address.scheme == "https" for address in config.addresses):
        for name in ("private_key_file", "certificate_file", "keystore"):
            if sources[name].origin is not Origin.DEFAULT:
                yield f"{sources[name].name} has no effect: none of the addresses is https."


def _with_addresses(config: Config, sources: Mapping[str, Source]) -> tuple[Config, list[str]]:
    """Settle the two addresses against host and port: what comes from the source that wins is taken."""

    def first(*names: str) -> Source:
        return min((sources[name] for name in names), key=lambda source: source.origin)

    plain, full = first("host", "port"), first("inference_address", "management_address")
    if plain.origin < full.origin:
        settled = replace(config, inference_address=None, management_address=None)
        if full.origin is Origin.DEFAULT or settled.addresses == config.addresses:
            return settled, []
        given = " and ".join(str(address) for address in config.addresses)
        return settled, [
            f"{plain.name} wins over {full.name}: listening on {settled.addresses[0]}, not {given}."
        ]
    one = config.inference_address or config.management_address
    settled = replace(
        config,
        inference_address=config.inference_address or one,
        management_address=config.management_address or one,
    )
    return settled, []
