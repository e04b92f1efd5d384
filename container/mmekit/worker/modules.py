"""Each model's code stays its own: two models of a worker may both have ``inference.py`` and ``utils.py``.

A model's modules are in ``sys.modules`` and its folders on ``sys.path`` only while its code runs; in
between they are kept aside. So an import inside a function finds the right file at request time
too, and module globals (``_service = MyService()``, ``global tokenizer``) are one set a model. That
holds for code of the image as well: people write it for servers that give each model a process.

What belongs to a model: modules that its folders offer by name, and modules whose file is below one
of its folders. Everything else (numpy, the framework) is shared. A thread that a model's code
leaves running imports what the worker has at that moment.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import takewhile
from types import ModuleType, TracebackType
from typing import TypeVar

from mmekit.artifact import importable_names

T = TypeVar("T")

#: Never taken for a model's, whatever files it has: the worker itself runs on them.
_NEVER_OWN = sys.stdlib_module_names | {"mmekit", "mmekit_handlers"}


class ModelCode(AbstractContextManager["ModelCode"]):
    """The modules of one model; used as ``with code: …`` around every call into them.

    ``names`` are top-level names that are private to this model beside what its folders offer: the
    module of an image-wide handler, wherever it is installed.
    """

    def __init__(self, code_dirs: Iterable[str], names: Iterable[str] = ()) -> None:
        self.code_dirs = tuple(os.path.abspath(folder) for folder in code_dirs)
        self._below = tuple(folder + os.sep for folder in self.code_dirs)
        self._names = (set(names) | set(importable_names(self.code_dirs))) - _NEVER_OWN
        self._modules: dict[str, ModuleType] = {}
        #: What its code has added to sys.path is kept with it.
        self._path: list[str] | None = None
        # While its code runs: what was there before.
        self._depth = 0
        self._outer_path: list[str] = []
        self._displaced: dict[str, ModuleType] = {}
        self._last_known = ""

    def __enter__(self) -> ModelCode:
        self._depth += 1
        if self._depth > 1:
            return self
        self._outer_path = sys.path[:]
        sys.path[:] = self._path or [*self.code_dirs, *sys.path]
        self._displaced = self._take(self._top_level_entries())
        sys.modules.update(self._modules)
        self._last_known = next(reversed(sys.modules))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if self._depth:
            return
        self._path = sys.path[:]
        sys.path[:] = self._outer_path
        own = self._modules.keys() | self._names
        own.update(name for name in self._added() if self._is_own(name))
        self._modules = self._take(own)
        sys.modules.update(self._displaced)
        self._displaced = {}

    def import_module(self, name: str) -> ModuleType:
        """Import a module with this model's folders first; raises what the import raises."""
        with self:
            self._forget_listings()  # the folder may be younger than the finder's listing
            return importlib.import_module(name)

    def iterate(self, parts: Iterator[T]) -> Iterator[T]:
        """Yield from an iterator of the model's, with its modules in place whenever its code runs."""
        try:
            while True:
                with self:
                    try:
                        part = next(parts)
                    except StopIteration:
                        return
                yield part
        finally:
            if close := getattr(parts, "close", None):
                with self:
                    close()

    def close(self) -> None:
        """Forget the model's modules, so that their memory goes with the model."""
        self._modules.clear()
        self._forget_listings()

    def _forget_listings(self) -> None:
        # Not importlib.invalidate_caches: it writes into memory shared with the template, 3 MiB of it.
        for folder in list(sys.path_importer_cache):
            if folder in self.code_dirs or folder.startswith(self._below):
                del sys.path_importer_cache[folder]

    def _top_level_entries(self) -> list[str]:
        """Return the entries of sys.modules that carry this model's names."""
        present = [name for name in self._names if name in sys.modules]
        packages = tuple(name + "." for name in present if hasattr(sys.modules[name], "__path__"))
        if packages:
            present += [name for name in sys.modules if name.startswith(packages)]
        return present

    def _added(self) -> list[str]:
        """Return what was imported while the model's code ran.

        Only the new end of sys.modules is looked at: in a forked worker, a look at every module would
        write 2,400 reference counts into memory that is shared with the template, 16 MiB of it.
        """
        return list(takewhile(lambda name: name != self._last_known, reversed(sys.modules)))

    def _is_own(self, name: str) -> bool:
        """Whether a new module is the model's: by its name, or by its file, for code may add to sys.path."""
        if name.partition(".")[0] in self._names:
            return True
        module = sys.modules[name]
        file = getattr(module, "__file__", None)
        if file is None:  # a package without __init__.py
            file = next(iter(getattr(module, "__path__", None) or ()), None)
        return isinstance(file, str) and file.startswith(self._below)

    def _take(self, names: Iterable[str]) -> dict[str, ModuleType]:
        taken = {}
        for name in names:
            module = sys.modules.pop(name, None)
            if module is not None:
                taken[name] = module
        return taken
