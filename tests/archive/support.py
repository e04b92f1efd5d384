"""Archives for tests, honest and hostile ones, as bytes."""

from __future__ import annotations

import gzip
import io
import random
import stat
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

FORMATS = ("zip", "tar", "tar.gz")
MIB = 1024 * 1024


def zip_bytes(files: Iterable[tuple[str, bytes]], mode: int = stat.S_IFREG | 0o644) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            info.filename = name  # ZipInfo cuts names at a zero byte
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return out.getvalue()


def tar_info(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, size, mode
    if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        info.linkname = "/etc/passwd"
    return info


def tar_bytes(files: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> bytes:
    """The members alone: what ends an archive comes from ``ended``."""
    out = io.BytesIO()
    archive = tarfile.TarFile(fileobj=out, mode="w", format=tarfile.PAX_FORMAT)
    for name, content in files:
        info = name if isinstance(name, tarfile.TarInfo) else tar_info(name, size=len(content))
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def ended(members: bytes) -> bytes:
    """Add the two blocks that end a tar archive; tar itself fills a record of 10 KiB."""
    return members + bytes(1024)


def archive_bytes(form: str, files: Iterable[tuple[str, bytes]]) -> bytes:
    if form == "zip":
        return zip_bytes(files)
    tar = ended(tar_bytes(files))
    return gzip.compress(tar, mtime=0) if form == "tar.gz" else tar


def written(tmp_path: Path, content: bytes, name: str = "model.archive") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder with their content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def model_files(name: str = "echo", handler: str = "service.py:handle") -> dict[str, bytes]:
    """A model in MMS's form that answers with what it was sent."""
    manifest = f'{{"runtime": "python", "model": {{"modelName": "{name}", "handler": "{handler}"}}}}'
    code = (
        "def handle(data, context):\n"
        "    if data is None:\n"
        "        return None\n"
        "    return [bytes(row.get('body') or b'') for row in data]\n"
    )
    return {"service.py": code.encode(), "MAR-INF/MANIFEST.json": manifest.encode()}


def noise(size: int) -> bytes:
    """Return bytes that cannot be compressed, the same each time: some would begin like a pickle."""
    return random.Random(0).randbytes(size)
