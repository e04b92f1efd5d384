"""A Config as the environment of Multi Model Server.

sagemaker-inference writes a properties file that allows ``MMS_<KEY>`` variables to override its keys
(``enable_envvars_config=true``), so every setting that MMS knows travels as such a variable, in MMS's
unit. Keys and their meaning: MMS's ``util/ConfigManager.java``.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

from mmekit.address import Address
from mmekit.config import Config
from mmekit.errors import ConfigError

#: MMS refuses ports from here on (MMS: util/Connector.java).
_FIRST_REFUSED_PORT = 32767
#: What a Java int can hold: no limit.
_UNLIMITED = 2**31 - 1


def mms_variables(config: Config) -> dict[str, str]:
    """Return the ``MMS_*`` variables for a Config.

    Raises ``ConfigError`` for an address that MMS cannot listen on.
    """
    inference, management = _addresses(config)
    values = {
        "inference_address": inference,
        "management_address": management,
        "default_workers_per_model": config.copies,
        "default_response_timeout_seconds": max(1, math.ceil(config.invoke_timeout_s)),
        "unregister_model_timeout": max(1, math.ceil(config.unregister_timeout_s)),
        "job_queue_size": config.queue_size,
        "number_of_gpu": _number_of_gpu(config),
        "max_request_size": config.max_body_bytes,
        "max_response_size": config.max_response_bytes or _UNLIMITED,
        "decode_input_request": config.decode_input_request,
        "preload_model": config.preload_model,
        "cors_allowed_origin": config.cors_allowed_origin,
        "cors_allowed_methods": config.cors_allowed_methods,
        "cors_allowed_headers": config.cors_allowed_headers,
        "keystore": config.keystore,
        "keystore_pass": config.keystore_pass if config.keystore else None,
        "keystore_type": config.keystore_type if config.keystore else None,
        "private_key_file": config.private_key_file,
        "certificate_file": config.certificate_file,
        "blacklist_env_vars": config.blacklist_env_vars.pattern if config.blacklist_env_vars else None,
        "debug": config.log_level <= logging.DEBUG,
        # sagemaker-inference gives "/" on the command line; a variable wins over that.
        "model_store": _model_store(config),
        "load_models": config.load_models,
    }
    return {f"MMS_{key.upper()}": _text(value) for key, value in values.items() if value is not None}


def _addresses(config: Config) -> tuple[Address, Address]:
    inference, management = config.addresses[0], config.addresses[-1]
    for address in (inference, management):
        if address.scheme != "unix" and not 0 < address.port < _FIRST_REFUSED_PORT:
            raise ConfigError(
                f"Multi Model Server cannot listen on {address}: it takes ports from 1 to "
                f"{_FIRST_REFUSED_PORT - 1}. Set SAGEMAKER_BIND_TO_PORT to one of them."
            )
    return inference, management


def _number_of_gpu(config: Config) -> int | None:
    """Return a number only where it cannot exceed the machine's: MMS does not check its variable."""
    return 0 if config.max_gpus == 0 else config.number_of_gpu


def _model_store(config: Config) -> Path | None:
    return None if config.model_store == Path("/") else config.model_store


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
