"""Files that systems, editors and tools leave behind: nobody reads them, and no archive needs them."""

from __future__ import annotations

from collections.abc import Sequence

#: Folders and files, by their whole names.
_NAMES = frozenset(
    {"__MACOSX", ".DS_Store", ".AppleDouble", ".Spotlight-V100", ".Trashes", ".fseventsd", "Icon\r"}
    | {"Thumbs.db", "ehthumbs.db", "desktop.ini", "$RECYCLE.BIN", "lost+found", ".directory"}
    | {"__pycache__", ".ipynb_checkpoints", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"}
    | {".git", ".gitignore", ".gitattributes", ".gitmodules", ".svn", ".hg", ".bzr", "CVS"}
    | {".idea", ".vscode", ".venv", ".tox", ".nox", ".coverage"}
)
#: Beginnings and ends of names: macOS's resource forks, compiled Python, editors' copies.
_PREFIXES = ("._", ".nfs", ".~lock.")
_SUFFIXES = (".pyc", ".pyo", ".swp", ".swo", "~")


def is_junk(parts: Sequence[str]) -> bool:
    """Say whether a file is junk, or lies in a folder that is; ``parts`` are those of its path."""
    return any(part in _NAMES or part.startswith(_PREFIXES) or part.endswith(_SUFFIXES) for part in parts)
