"""Every setting as people see it: docs/settings.md, and the values of one environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmekit.config import Config
from mmekit.resolution import Resolution
from mmekit.settings import SAME, Setting, settings_of

if TYPE_CHECKING:
    from rich.table import Table

_HEAD = """\
# Settings

Made from the declarations in `container/mmekit` by `mmekit settings --markdown`; do not edit.

The value of a setting is the first of: an option of `mmekit serve`, a variable (of several, the first
in the row that is set), a key of config.properties (of several, the first), the default. With
`enable_envvars_config=true` in the file a variable `MMS_<KEY>` wins over its key. An empty value counts
as not set.

MMS mode is what the commands `multi-model-server` and `mxnet-model-server` start, and `mmekit serve`
with `--mms-config` or `MMS_CONFIG_FILE`. Only there config.properties is read and MMS's defaults count.

Accepted and without effect: `async_logging` (logs never hold a request here), and with a warning the
keys about the JVM: `number_of_netty_threads`, `netty_client_threads`, `prefer_direct_buffer`,
`use_native_io`, `io_ratio`, `vmargs`, `plugins_path`, `model_server_home`. Other unknown keys are named
in a warning. In the file `$$NAME$$` stands for the value of the environment variable NAME, which must
be set.
"""


def settings_markdown() -> str:
    """Return docs/settings.md: tables of every setting, in the order of declaration."""
    lines = _HEAD.splitlines()
    for title, reader in (("Read by the server", "server"), ("Read by the handlers", "handlers")):
        lines += ["", f"## {title}", ""]
        names = ["option", "variable", "key", "unit", "default", "MMS mode", "meaning"]
        if reader == "handlers":
            names = ["variable", "unit", "default", "meaning"]
        lines += [_row(names), _row(["---"] * len(names))]
        for field_name, declared in settings_of(Config).items():
            if declared.read_by == reader:
                lines.append(_row([_cell(name, field_name, declared) for name in names]))
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(column: str, field_name: str, declared: Setting) -> str:
    if column == "option":
        return f"`{declared.option(field_name)}`"
    if column == "variable":
        return _names(declared.env)
    if column == "key":
        return _names(declared.keys)
    if column == "default":
        return declared.default_text or shown(default_of(field_name), "`")
    if column == "MMS mode":
        return "" if declared.mms_default is SAME else shown(declared.mms_default, "`")
    return declared.unit if column == "unit" else declared.meaning


def _names(pairs: tuple[tuple[str, Any], ...]) -> str:
    return ", ".join(f"`{name}`" for name, _ in pairs)


def default_of(field_name: str) -> Any:
    """Return the default of a field outside MMS mode."""
    return Config.__dataclass_fields__[field_name].default


def shown(value: Any, quote: str = "") -> str:
    """Return a value as people write it."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        value = str(value).lower()
    return f"{quote}{getattr(value, 'pattern', value)}{quote}"


def values_table(resolution: Resolution) -> Table:
    """Return a table of every setting: its value, unit, where the value comes from."""
    from rich.table import Table

    table = Table("setting", "value", "unit", "from")
    for name, declared in settings_of(Config).items():
        value = getattr(resolution.config, name)
        if declared.secret:
            text = "(hidden)"
        elif value is None:
            text = declared.default_text or "not set"
        else:
            text = shown(value)
        table.add_row(name, text.replace("`", ""), declared.unit, resolution.sources[name].name)
    return table
