"""What is wrong with the members of an archive, told from names, kinds and permissions alone. Pure."""

from __future__ import annotations

import re
import stat
from collections import Counter
from collections.abc import Iterable, Sequence

from mmekit.archive.members import fault_of_name
from mmekit_toolkit.archive.findings import Finding, Level, about, count, shown
from mmekit_toolkit.archive.junk import is_junk
from mmekit_toolkit.archive.listing import Entry, Listing

_ARCHIVES = re.compile(r"\.(tar|tar\.gz|tgz|tar\.bz2|tar\.xz|zip|mar|7z|rar|whl)$", re.IGNORECASE)
#: Names of what no archive should carry around.
_SECRETS = re.compile(
    r"(\.env|\.netrc|\.pypirc|\.git-credentials|id_(rsa|dsa|ecdsa|ed25519)|credentials|.*\.(pem|p12|pfx|key))",
    re.IGNORECASE,
)
_PACK = "`mmekit archive pack` makes an archive without them"


def of_members(listing: Listing) -> list[Finding]:
    """Return what is wrong with the members of an archive, or the files of a folder."""
    entries = [entry for entry in listing.entries if not is_junk(entry.parts)]
    junk = [entry for entry in listing.entries if is_junk(entry.parts)]
    rules = [_of_names, _of_taken_names, _of_odd_names, _of_archives_inside, _of_secrets]
    rules += [_of_links, _of_devices, _of_permissions] if listing.form else [_of_links_in_folder]
    found = [finding for rule in rules for finding in rule(entries)]
    return [*found, *_of_junk(junk)]


def _paths(entries: Iterable[Entry]) -> list[str]:
    return [entry.path for entry in entries]


def _of_junk(junk: Sequence[Entry]) -> Iterable[Finding]:
    if junk:
        files = [entry.path for entry in junk if not entry.is_folder] or _paths(junk)
        yield about(
            Level.REMARK,
            "junk",
            f"{count(len(files), 'file')} that systems, editors and tools leave behind: {shown(files)}. "
            f"Nobody reads them; {_PACK}.",
            files,
        )


def _of_names(entries: Sequence[Entry]) -> Iterable[Finding]:
    by_fault: dict[str, list[str]] = {}
    for entry in entries:
        if wrong := fault_of_name(entry.path):
            by_fault.setdefault(wrong, []).append(entry.path)
    for wrong, paths in by_fault.items():
        yield about(
            Level.FAULT,
            "path",
            f"{count(len(paths), 'member')} with {wrong}: {shown(paths)}. Nothing of the archive is "
            "unpacked; pack the model's folder with relative paths (tar -C FOLDER …).",
            paths,
        )


def _of_links(entries: Sequence[Entry]) -> Iterable[Finding]:
    links = [entry for entry in entries if entry.is_link]
    if links:
        told = [f"{entry.path} → {entry.target}" if entry.target else entry.path for entry in links]
        yield about(
            Level.FAULT,
            "link",
            f"{count(len(links), 'link')}: {shown(told)}. An archive with links is refused; `mmekit archive "
            "pack` packs what links lead to (as tar --dereference --hard-dereference does).",
            _paths(links),
        )


def _of_links_in_folder(entries: Sequence[Entry]) -> Iterable[Finding]:
    dead = [entry for entry in entries if entry.is_link and not entry.leads]
    if dead:
        told = [f"{entry.path} → {entry.target}" for entry in dead]
        yield about(
            Level.FAULT,
            "link",
            f"{count(len(dead), 'link')} that lead nowhere: {shown(told)}. Delete them, or put "
            "the files there.",
            _paths(dead),
        )
    links = [entry.path for entry in entries if entry.is_link and entry.leads]
    if links:
        yield about(
            Level.REMARK,
            "link",
            f"{count(len(links), 'link')}: {shown(links)}. `mmekit archive pack` packs what they lead to.",
            links,
        )


def _of_devices(entries: Sequence[Entry]) -> Iterable[Finding]:
    others = [entry.path for entry in entries if not (entry.is_file or entry.is_folder or entry.is_link)]
    if others:
        yield about(
            Level.FAULT,
            "device",
            f"{count(len(others), 'device or pipe')}: {shown(others)}. An archive with anything but "
            "files and folders is refused.",
            others,
        )


def _of_taken_names(entries: Sequence[Entry]) -> Iterable[Finding]:
    files = Counter(entry.clean for entry in entries if not entry.is_folder)
    twice = sorted(path for path, number in files.items() if number > 1)
    if twice:
        yield about(
            Level.FAULT,
            "duplicate",
            f"{count(len(twice), 'file')} more than once: {shown(twice)}. Which one counts depends on who "
            "unpacks; pack again.",
            twice,
        )
    folders = {entry.clean for entry in entries if entry.is_folder}
    for entry in entries:
        parts = entry.parts
        folders |= {"/".join(parts[:number]) for number in range(1, len(parts))}
    if both := sorted(folders & files.keys()):
        yield about(
            Level.FAULT,
            "duplicate",
            f"{shown(both)}: a file and a folder of one name. Rename one of them.",
            both,
        )


def _of_odd_names(entries: Sequence[Entry]) -> Iterable[Finding]:
    odd = [entry.path for entry in entries if _is_odd(entry)]
    if odd:
        yield about(
            Level.WARNING,
            "odd-name",
            f"{count(len(odd), 'name')} with control characters, bytes that are no UTF-8, or spaces at an end"
            f": {shown(odd)}. Rename them: code rarely finds such files.",
            odd,
        )


def _is_odd(entry: Entry) -> bool:
    return not entry.path.isprintable() or any(part != part.strip() for part in entry.parts)


def _of_archives_inside(entries: Sequence[Entry]) -> Iterable[Finding]:
    inside = [entry.path for entry in entries if entry.is_file and _ARCHIVES.search(entry.path)]
    if inside:
        yield about(
            Level.WARNING,
            "archive-inside",
            f"{count(len(inside), 'archive')} inside: {shown(inside)}. Nobody unpacks them but code of the "
            "model's own; pack what is in them.",
            inside,
        )


def _of_secrets(entries: Sequence[Entry]) -> Iterable[Finding]:
    secret = [e.path for e in entries if e.is_file and e.parts and _SECRETS.fullmatch(e.parts[-1])]
    if secret:
        yield about(
            Level.WARNING,
            "secret",
            f"{shown(secret)}: by their names these are passwords or keys, and everybody who can read the "
            "bucket gets them. Leave them out.",
            secret,
        )


def _of_permissions(entries: Sequence[Entry]) -> Iterable[Finding]:
    # Zip archives made on Windows have no permissions at all.
    hidden = [entry.path for entry in entries if stat.S_IMODE(entry.mode) and not _everybody_reads(entry)]
    if hidden:
        yield about(
            Level.WARNING,
            "permissions",
            f"{count(len(hidden), 'member')} that not every user may read: {shown(hidden)}. A container that "
            "does not run as root may not load the model: chmod -R a+rX before packing; `mmekit archive "
            "pack` sets permissions that work.",
            hidden,
        )


def _everybody_reads(entry: Entry) -> bool:
    wanted = 0o005 if entry.is_folder else 0o004
    return entry.is_link or entry.mode & wanted == wanted
