"""Names of models and the keys of their versions: ``NAME-<12 hex of SHA-256>.tar.gz`` below the prefix.

An archive that changes gets another key, so that an instance which holds the old one never mixes the two.
A name may have folders: ``tenant_a/churn`` is what a policy for ``tenant_a/*`` allows.
"""

from __future__ import annotations

import re

from mmekit_toolkit.errors import ToolkitError

SUFFIX = ".tar.gz"
_HASH_LENGTH = 12
_VERSION = re.compile(rf"(?P<name>.+)-(?P<hash>[0-9a-f]{{{_HASH_LENGTH}}}){re.escape(SUFFIX)}", re.DOTALL)
#: Plain segments: what S3 calls safe, and what needs no quoting in a header, a shell or a policy.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
#: TargetModel has at most 1024 characters (botocore: TargetModelHeader), keys in S3 as many bytes.
_LONGEST_TARGET = 1024


def target_of(name: str, sha256: str) -> str:
    """Return the TargetModel of an archive of this name with this hash."""
    return f"{name}-{sha256[:_HASH_LENGTH]}{SUFFIX}"


def name_of(target: str) -> str | None:
    """Return the name of which a TargetModel is a version, None where no hash is in it."""
    found = _VERSION.fullmatch(target)
    return found["name"] if found else None


def name_from_file(file: str, sha256: str) -> str:
    """Return the model's name that a file name has; the content's own hash in it is not part of that."""
    stem = file.removesuffix(SUFFIX).removesuffix(".tgz")
    return stem.removesuffix(f"-{sha256[:_HASH_LENGTH]}")


def check(name: str, prefix: str) -> str:
    """Return the name. Raises ToolkitError where it, or a key made of it, cannot be used."""
    if not _NAME.fullmatch(name):
        raise ToolkitError(
            f"the model name {name!r} cannot be used. Expected letters, digits, '_', '-' and '.', with '/' "
            "between folders; --name gives another."
        )
    longest = _LONGEST_TARGET - len(prefix) - len(target_of("", "0" * _HASH_LENGTH))
    if len(name) > longest:
        raise ToolkitError(f"the model name {name[:40]}… has {len(name)} characters, {longest} are possible.")
    return name
