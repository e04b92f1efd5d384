"""What lies below a prefix, seen as models with versions. Decisions only; listing is ``aws.s3``'s."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmekit_toolkit.aws.s3 import StoredObject
from mmekit_toolkit.errors import NotFound
from mmekit_toolkit.operate import naming


@dataclass(frozen=True)
class Entry:
    """One object: a version of a model, or one that others put there."""

    object: StoredObject
    #: None where the key has no hash: not uploaded by us.
    name: str | None
    #: The newest of its name.
    current: bool

    @property
    def target(self) -> str:
        """The TargetModel that calls it."""
        return self.object.path


def entries(objects: Iterable[StoredObject]) -> list[Entry]:
    """Return all entries by name, newest first; foreign ones stand at their key's place."""
    named = [(naming.name_of(found.path), found) for found in objects]
    newest: dict[str, StoredObject] = {}
    for name, found in named:
        if name is not None and (name not in newest or _age(found) > _age(newest[name])):
            newest[name] = found
    made = [Entry(found, name, name is not None and newest[name] is found) for name, found in named]
    return sorted(sorted(made, key=lambda entry: _age(entry.object), reverse=True), key=_place)


def newest(all_of_them: Iterable[Entry], name: str) -> str:
    """Return the TargetModel of a name's newest version, or of the foreign ``NAME.tar.gz``.

    Raises NotFound that names what is similar.
    """
    known = list(all_of_them)
    for entry in known:
        if entry.name == name and entry.current:
            return entry.target
    for entry in known:
        if entry.name is None and entry.target == name + naming.SUFFIX:
            return entry.target
    raise _unknown(name, known)


def chosen(all_of_them: Sequence[Entry], wanted: Sequence[str], keep: int | None) -> list[Entry]:
    """Return the entries that ``models remove`` is to remove.

    ``wanted`` are TargetModels and names; a name stands for all its versions but the newest ``keep``. With
    ``keep`` alone all names are meant. Raises NotFound for what is not there.
    """
    versions: dict[str, list[Entry]] = defaultdict(list)
    for entry in all_of_them:
        if entry.name is not None:
            versions[entry.name].append(entry)
    by_target = {entry.target: entry for entry in all_of_them}
    found: dict[str, Entry] = {}
    for word in wanted or versions:
        if word in versions:
            found.update((entry.target, entry) for entry in versions[word][keep or 0 :])
        elif word in by_target:
            found[word] = by_target[word]
        else:
            raise _unknown(word, all_of_them)
    return list(found.values())


def _age(found: StoredObject) -> tuple[float, str]:
    # S3 dates are whole seconds: of two that came at once, the later key counts.
    return found.modified.timestamp(), found.path


def _place(entry: Entry) -> str:
    return entry.target.removesuffix(naming.SUFFIX) if entry.name is None else entry.name


def _unknown(word: str, known: Iterable[Entry]) -> NotFound:
    names = sorted({_place(entry) for entry in known} | {entry.target for entry in known})
    if not names:
        return NotFound(f"there is no model {word}, and no other: `mmekit models add` uploads one.")
    near = difflib.get_close_matches(word, names, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else "`mmekit models list` shows those there are."
    return NotFound(f"there is no model {word}. {hint}")
