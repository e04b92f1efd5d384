"""Checks an archive or a folder: lists it, unpacks it as the server does, looks at it, says what is wrong."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mmekit.archive.members import Form
from mmekit.archive.sample import Sample
from mmekit.archive.store import model_folder
from mmekit.archive.unpack import unpack
from mmekit.errors import InvalidModel, MmekitError, OutOfResources
from mmekit_toolkit.archive import member_rules, report
from mmekit_toolkit.archive.environment import Environment
from mmekit_toolkit.archive.findings import Finding, Level, about, faults
from mmekit_toolkit.archive.inspection import Inspection, inspect_folder
from mmekit_toolkit.archive.listing import (
    Listing,
    extract_what_is_good,
    list_archive,
    list_folder,
    reason_of,
)
from mmekit_toolkit.archive.reporting import build
from mmekit_toolkit.archive.signature import Signature
from mmekit_toolkit.archive.sizes import shown_bytes

GIB = 1024**3
#: What the server unpacks at most (MMEKIT_MAX_UNPACKED_BYTES), and a check where no volume is given.
DEFAULT_UNPACKED_BYTES = 10 * GIB
#: Left free on this machine's disk.
_SPARE_BYTES = 256 * 1024 * 1024
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Order:
    """What to check against; ``volume_bytes`` is what an instance has for models, None where nobody said."""

    environment: Environment = field(default_factory=Environment)
    volume_bytes: int | None = None
    #: To be packed with the folder: they count as if they lay in it.
    sample: Sample | None = None
    signature: Signature | None = None
    #: Told what is done, for a display.
    tell: Callable[[str], None] = lambda _: None

    @property
    def max_bytes(self) -> int:
        """How much is unpacked at most."""
        return self.volume_bytes or DEFAULT_UNPACKED_BYTES


def check(path: Path, source: str, order: Order) -> report.Report:
    """Check an archive or a model's folder, called ``source``; never raises for what is in it."""
    with checked(path, source, order) as (found, _):
        return found


@contextmanager
def checked(path: Path, source: str, order: Order) -> Iterator[tuple[report.Report, Path | None]]:
    """Check, and keep the folder with the model until the end; None where nothing could be unpacked."""
    if path.is_dir():
        found = _check_folder(path, source, order)
        yield found, path
        return
    with tempfile.TemporaryDirectory(prefix="mmekit-check-") as scratch:
        yield _check_archive(path, source, order, Path(scratch))


# --- folders -------------------------------------------------------------------------------


def _check_folder(path: Path, source: str, order: Order) -> report.Report:
    order.tell("listing files")
    try:
        listing = list_folder(path)
    except OSError as error:
        listing = Listing(None, problem=f"it cannot be read: {error.strerror}")
    findings = member_rules.of_members(listing)
    if listing.problem:
        findings.append(about(Level.FAULT, "unreadable", f"{source}: {listing.problem}."))
    order.tell("looking into files")
    inspection = inspect_folder(path, order.environment, order.sample, order.signature)
    sizes = report.Sizes(None, listing.size_bytes, len(listing.files))
    findings += _of_sizes(sizes, order)
    return build(source, "folder", None, sizes, inspection, findings, path, order.environment)


# --- archives ------------------------------------------------------------------------------


def _check_archive(path: Path, source: str, order: Order, scratch: Path) -> tuple[report.Report, Path | None]:
    order.tell("listing members")
    try:
        listing = list_archive(path, source, order.max_bytes)  # first: opening a pipe would wait
        size, digest = path.stat().st_size, _sha256(path)
    except (InvalidModel, OSError) as error:
        reason = reason_of(error, source) if isinstance(error, InvalidModel) else str(error.strerror)
        return _no_archive(source, reason, order), None
    findings = member_rules.of_members(listing) + _of_form(listing, source, order)
    sizes = report.Sizes(size, listing.size_bytes, len(listing.files))
    findings += _of_sizes(sizes, order)
    folder: Path | None = None
    inspection = Inspection()
    if not listing.is_too_large and _fits_here(listing, scratch, source, findings):
        order.tell("unpacking")
        folder, refused = _unpacked(path, source, order, scratch, findings)
        order.tell("looking into files")
        if folder is not None:
            inner = folder if listing.form is Form.TAR_GZ else model_folder(folder)
            inspection = inspect_folder(inner, order.environment)
            folder = inner
        if refused and not inspection.models:
            # Half of a model tells nothing about what would have run it.
            inspection.findings = [each for each in inspection.findings if each.name != "not-loaded"]
    form = listing.form.value if listing.form else None
    found = build(source, form, digest, sizes, inspection, findings, folder, order.environment)
    return found, folder if not faults(findings) else None


def _no_archive(source: str, reason: str, order: Order) -> report.Report:
    text = f"{source}: {reason}. SageMaker multi-model endpoints take .tar.gz archives (tar -czf)."
    finding = about(Level.FAULT, "no-archive", text)
    return build(
        source, None, None, report.Sizes(None, 0, 0), Inspection(), [finding], None, order.environment
    )


def _unpacked(
    path: Path, source: str, order: Order, scratch: Path, findings: list[Finding]
) -> tuple[Path | None, bool]:
    """Unpack as the server does; what it refuses, as far as that is safe. Say whether it was refused."""
    folder = scratch / "model"
    try:
        unpack(path, source, folder, order.max_bytes)
        return folder, False
    except OutOfResources as error:
        findings.append(about(Level.WARNING, "not-unpacked", error.message))
        return None, True
    except MmekitError as error:
        if not faults(findings):
            text = reason_of(error, source) if isinstance(error, InvalidModel) else error.message
            findings.append(about(Level.FAULT, "refused", f"the archive is refused: {text}."))
    folder.mkdir(exist_ok=True)
    extract_what_is_good(path, source, folder, order.max_bytes)
    return folder, True


def _fits_here(listing: Listing, scratch: Path, source: str, findings: list[Finding]) -> bool:
    free = shutil.disk_usage(scratch).free - _SPARE_BYTES
    if listing.size_bytes <= free:
        return True
    text = (
        f"{source} was listed, not looked into: it unpacks to {shown_bytes(listing.size_bytes)}, and "
        f"{scratch.parent} has {shown_bytes(max(0, free))} free. Set TMPDIR to a folder with more."
    )
    findings.append(about(Level.WARNING, "not-unpacked", text))
    return False


def _of_form(listing: Listing, source: str, order: Order) -> list[Finding]:
    found = []
    if listing.problem:
        text = f"the list of members is not complete: {listing.problem}. What follows is about those before."
        found.append(about(Level.FAULT, "damaged", text))
    elif not listing.entries:
        found.append(about(Level.FAULT, "empty", f"{source} has no members."))
    if listing.form is not Form.TAR_GZ:
        name = listing.form.value if listing.form else "folder"
        text = (
            f"this is a {name} archive: mmekit and Multi Model Server load it from a model store, SageMaker "
            "multi-model endpoints take .tar.gz alone. `mmekit archive pack DIR` makes one."
        )
        found.append(about(Level.REMARK, "not-tar-gz", text))
    elif not source.endswith((".tar.gz", ".tgz")):
        text = "the name does not end with .tar.gz, as people and tools expect of such an archive."
        found.append(about(Level.REMARK, "name", text))
    if listing.is_too_large:
        limit = shown_bytes(order.max_bytes)
        advice = (
            f"more than the volume of {limit} (--volume-gb)"
            if order.volume_bytes
            else f"more than the {limit} that mmekit unpacks (MMEKIT_MAX_UNPACKED_BYTES). SageMaker unpacks "
            "what its volume takes: --volume-gb says how much that is"
        )
        text = (
            f"it unpacks to more than {shown_bytes(listing.size_bytes - 1)}: {advice}. The rest was not read."
        )
        found.append(about(Level.FAULT, "too-large", text))
    return found


def _of_sizes(sizes: report.Sizes, order: Order) -> list[Finding]:
    volume = order.volume_bytes
    if not volume or (sizes.unpacked_bytes > volume and sizes.archive_bytes is not None):
        return []  # told already
    if sizes.unpacked_bytes > volume:
        text = f"its files have {shown_bytes(sizes.unpacked_bytes)}, the volume {shown_bytes(volume)}."
        return [about(Level.FAULT, "too-large", text)]
    both = sizes.unpacked_bytes + (sizes.archive_bytes or 0)
    if both > volume:
        text = (
            f"archive and files together have {shown_bytes(both)}, the volume {shown_bytes(volume)}: it may "
            "not hold both while the archive is unpacked."
        )
        return [about(Level.WARNING, "volume", text)]
    return []


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
