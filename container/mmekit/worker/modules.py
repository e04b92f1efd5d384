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
        self._known = 0

    def __enter__(self) -> ModelCode:
        self._depth += 1
        if self._depth > 1:
            return self
        self._outer_path = sys.path[:]
        sys.path[:] = self._path or [*self.code_dirs, *sys.path]
        self._displaced = self._take(self._top_level_entries())
        sys.modules.update(self._modules)
        self._known = len(sys.modules)
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
        if len(sys.modules) != self._known:  # something was imported: look which of it is the model's
            own.update(self._top_level_entries(), self._found_by_file())
        self._modules = self._take(own)
        sys.modules.update(self._displaced)
        self._displaced = {}

    def import_module(self, name: str) -> ModuleType:
        """Import a module with this model's folders first; raises what the import raises."""
        with self:
            importlib.invalidate_caches()  # the folder may be younger than the finder's listing
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
        for folder in self.code_dirs:
            sys.path_importer_cache.pop(folder, None)

    def _top_level_entries(self) -> list[str]:
        """Return the entries of sys.modules that carry this model's names."""
        present = [name for name in self._names if name in sys.modules]
        packages = tuple(name + "." for name in present if hasattr(sys.modules[name], "__path__"))
        if packages:
            present += [name for name in sys.modules if name.startswith(packages)]
        return present

    def _found_by_file(self) -> list[str]:
        """Return modules below the model's folders by whatever name: its code may add to sys.path."""
        return [name for name, module in list(sys.modules.items()) if self._is_below(module)]

    def _is_below(self, module: ModuleType) -> bool:
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
