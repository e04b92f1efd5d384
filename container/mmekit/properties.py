"""MMS's config.properties: which file, what it says, what a person should be told about it.

MMS: frontend/server ... util/ConfigManager.java and multi_model_server/model_server.py. The form
is that of java.util.Properties, so bytes are ISO 8859-1.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmekit import parsers
from mmekit.errors import ConfigError
from mmekit.settings import Origin, Source

#: The word that ``--mms-config`` takes instead of a file: MMS's own configuration for SageMaker.
SAGEMAKER = "sagemaker"

_SAGEMAKER_LINES = """
model_store=$$SAGEMAKER_MODEL_STORE$$
inference_address=http://0.0.0.0:$$SAGEMAKER_BIND_TO_PORT$$
management_address=http://0.0.0.0:$$SAGEMAKER_BIND_TO_PORT$$
default_response_timeout=$$SAGEMAKER_RESPONSE_TIMEOUT$$
unregister_model_timeout=$$SAGEMAKER_RESPONSE_TIMEOUT$$
default_workers_per_model=$$SAGEMAKER_NUM_MODEL_WORKERS$$
default_service_handler=$$SAGEMAKER_HANDLER$$
async_logging=true
max_response_size=$$SAGEMAKER_MAX_RESPONSE_SIZE$$
max_request_size=$$SAGEMAKER_MAX_REQUEST_SIZE$$
decode_input_request=false
"""

#: About the JVM or Netty: they have nothing to act on here.
JVM_KEYS = (
    "number_of_netty_threads",
    "netty_client_threads",
    "prefer_direct_buffer",
    "use_native_io",
    "io_ratio",
    "vmargs",
    "plugins_path",
    "model_server_home",
)
_ENABLE_VARIABLES = "enable_envvars_config"
#: Keys that are no setting: the one that is read here, and one that always holds (logs are asynchronous).
_OWN_KEYS = (_ENABLE_VARIABLES, "async_logging")

_VARIABLE = re.compile(r"\$\$([^$]+)\$\$")


@dataclass(frozen=True)
class Properties:
    """One configuration file as settings read it; ``variables`` are the MMS_* that may override it."""

    name: str
    values: Mapping[str, str]
    variables: Mapping[str, str]

    def find(self, key: str) -> tuple[str, Source] | None:
        """Return the text of a key and where it stands; None when it is not set or empty."""
        variable = "MMS_" + key.upper()
        if text := self.variables.get(variable, ""):
            return text, Source(Origin.MMS_VARIABLE, variable)
        if text := self.values.get(key, ""):
            return text, Source(Origin.FILE, f"{self.name}: {key}")
        return None

    def warnings(self, known: Collection[str]) -> list[str]:
        """Return what to tell about keys without effect; ``known`` are the keys of settings."""
        told = []
        jvm = [key for key in self.values if key in JVM_KEYS]
        if jvm:
            told.append(
                f"{self.name}: these keys are about the JVM and have no effect here: {', '.join(jvm)}."
            )
        every = [*known, *_OWN_KEYS, *JVM_KEYS]
        unknown = [_with_nearest(key, every) for key in self.values if key not in every]
        if unknown:
            told.append(f"{self.name}: these keys are not known and have no effect: {', '.join(unknown)}.")
        return told


def _with_nearest(key: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(key, known, 1, 0.8)
    return f"{key!r} (did you mean {nearest[0]}?)" if nearest else repr(key)


def locate(environ: Mapping[str, str], option: str | None) -> str | None:
    """Return the file that counts, as MMS looks it up: MMS_CONFIG_FILE, else ``--mms-config``."""
    return environ.get("MMS_CONFIG_FILE") or option or None


def load(name: str, environ: Mapping[str, str]) -> Properties:
    """Read a file, or MMS's own for the name ``sagemaker``, and put variables in for ``$$NAME$$``.

    Raises ConfigError when the file cannot be read, is not a properties file, or names a variable
    that is not set.
    """
    import javaproperties

    text = _SAGEMAKER_LINES if name == SAGEMAKER else _read(name)
    shown = f"--mms-config {SAGEMAKER}" if name == SAGEMAKER else name
    try:
        values = javaproperties.loads(text)
    except ValueError as error:
        raise ConfigError(f"{shown} is not a properties file: {error}. Correct it.") from None
    values = {key: _substituted(key, value, shown, environ) for key, value in values.items()}
    variables = {}
    if enable := values.get(_ENABLE_VARIABLES, ""):
        try:
            variables = dict(environ) if parsers.boolean(enable) else {}
        except ValueError as error:
            raise ConfigError(
                f"{shown}: {_ENABLE_VARIABLES}={enable!r} cannot be used: expected {error}."
            ) from None
    return Properties(shown, values, variables)


def _read(name: str) -> str:
    path = Path(name)
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"The configuration file {name} cannot be read: it is not a file.")
        return path.read_bytes().decode("iso-8859-1")
    except OSError as error:
        raise ConfigError(
            f"The configuration file {name} cannot be read: {error.strerror}. "
            "Correct --mms-config or MMS_CONFIG_FILE."
        ) from None


def _substituted(key: str, text: str, shown: str, environ: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] not in environ:
            raise ConfigError(
                f"{shown}: {key} names the environment variable {found[1]!r}, which is not set. Set it."
            )
        return environ[found[1]]

    return _VARIABLE.sub(value, text).strip()
