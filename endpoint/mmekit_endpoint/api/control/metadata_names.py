"""Names of S3's user metadata that have an underscore, which WSGI cannot tell from a hyphen.

gunicorn has the names of a request's fields and WSGI's environ does not, so they travel in a field of our
own. moto's server knows such names by an entry of the environ.
"""

from __future__ import annotations

from typing import Any

_PREFIX = "X-AMZ-META-"

#: Ours; what a client sends under this name is dropped.
_FIELD = "X-MMEKIT-METADATA-NAMES"
_ENVIRON_KEY = "HTTP_X_MMEKIT_METADATA_NAMES"


def keep_metadata_names(fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return a request's fields with names in upper case, safe for WSGI.

    Names with an underscore go, since they could pose as others; those of user metadata stay, and are named.
    """
    hyphenated = {name for name, _ in fields if "_" not in name}
    kept, names = [], []
    for name, value in fields:
        if name == _FIELD:
            continue
        if "_" in name:
            if not name.startswith(_PREFIX) or name.replace("_", "-") in hyphenated:
                continue
            names.append(name)
        kept.append((name, value))
    return [*kept, (_FIELD, ",".join(names))] if names else kept


def restore_metadata_names(environ: dict[str, Any]) -> None:
    """Tell moto's server the names that `keep_metadata_names` kept."""
    from moto.core.request import PRESERVED_HEADER_NAMES_ENVIRON_KEY, environ_key_for_header

    names = environ.pop(_ENVIRON_KEY, "")
    if names:
        preserved = {environ_key_for_header(name): name for name in names.split(",")}
        environ[PRESERVED_HEADER_NAMES_ENVIRON_KEY] = preserved
