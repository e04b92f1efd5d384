"""Which models a server loads when it starts: the setting ``load_models`` against the model store."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from urllib.parse import urlsplit

from mmekit.archive.manifest import MAX_BYTES, Manifest, parse, parse_legacy, read_manifest
from mmekit.archive.store import ModelStore, is_download
from mmekit.errors import InvalidModel, ModelNotFound

_log = logging.getLogger(__name__)

#: Files that ``ALL`` takes for models. MMS takes the first two; it cannot unpack tar archives.
ARCHIVE_SUFFIXES = (".mar", ".model", ".zip", ".tar.gz", ".tgz", ".tar")

_MANIFESTS = re.compile(r"([^/]+/)?(MAR-INF/)?MANIFEST\.json")


def startup_models(text: str, store: ModelStore) -> list[tuple[str, str]]:
    """Return name and url of the models that ``load_models`` names; blocks.

    ``ALL`` is every folder and archive of the store that is not hidden; otherwise a list
    ``[name=]url,…``. A model without a name given has that of its manifest, else that of its file,
    with ``_`` for what is no letter, digit or underscore (MMS: ModelServer.java). For a download
    without a name the name is empty: only its manifest can say it. What cannot be read is listed too:
    loading it says what is wrong.
    """
    if text.strip().upper() == "ALL":
        urls = [("", name) for name in _names_in(store)]
    else:
        urls = [_pair(entry) for entry in text.split(",")]
    return [(name or _name(url, store), url) for name, url in urls if url]


def default_name(url: str) -> str:
    """Return the name of a model whose manifest has none."""
    name = urlsplit(url).path if is_download(url) else url
    name = name.rstrip("/").rpartition("/")[2]
    for suffix in ARCHIVE_SUFFIXES:
        name = name.removesuffix(suffix)
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _pair(entry: str) -> tuple[str, str]:
    name, equals, url = entry.strip().partition("=")
    return (name.strip(), url.strip()) if equals else ("", name.strip())


def _names_in(store: ModelStore) -> list[str]:
    if store.root is None:
        _log.warning("No models are loaded at start: load_models is ALL, but there is no model_store.")
        return []
    try:
        entries = sorted(store.root.iterdir())
    except OSError as error:
        _log.warning(
            "No models are loaded at start: the model store %s cannot be listed: %s.",
            store.root,
            error.strerror,
        )
        return []
    return [entry.name for entry in entries if _is_model(entry)]


def _is_model(entry: Path) -> bool:
    if entry.name.startswith(".") or entry.name == "lost+found":
        return False
    return entry.is_dir() or (entry.is_file() and entry.name.endswith(ARCHIVE_SUFFIXES))


def _name(url: str, store: ModelStore) -> str:
    if is_download(url):
        return ""
    try:
        manifest = _manifest(store.locate(url))
    except (InvalidModel, ModelNotFound, OSError):
        manifest = None
    return (manifest.model_name if manifest else None) or default_name(url)


def _manifest(path: Path) -> Manifest | None:
    """Return the manifest of a folder or, without unpacking it, of an archive. Raises InvalidModel."""
    if path.is_dir():
        return read_manifest(path)
    from mmekit.archive.unpack import read_files  # as in ModelStore: most servers see no archive

    contents = read_files(path, _MANIFESTS, MAX_BYTES)
    for name in sorted(contents, key=lambda name: (name.count("/"), name)):
        if name.endswith("MAR-INF/MANIFEST.json"):
            return parse(contents[name])
    return next((parse_legacy(content) for content in contents.values()), None)
