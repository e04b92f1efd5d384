"""The code that a model brings: which functions it defines, what it imports, whether Python can read it.

Source is parsed, never run.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmekit_toolkit.archive.listing import files_below

#: A module of people's own is smaller; larger ones are generated, and parsing takes its time.
_MAX_SOURCE_BYTES = 1024 * 1024
#: Of all files together; a MiB takes a second.
_MAX_PARSED_BYTES = 8 * 1024 * 1024
_MAX_FILES = 500


@dataclass
class OwnCode:
    """``modules`` are the files, relative to the model's folder."""

    modules: list[str] = field(default_factory=list)
    #: Functions and classes that the program or the handler's file defines at its top.
    defines: list[str] = field(default_factory=list)
    #: All names that it has after its import; ``*`` where it takes all of another module.
    names: set[str] = field(default_factory=set)
    has_class: bool = False
    #: Its first import that begins with a dot, which no program can do: it is in no package.
    relative: str | None = None
    #: Its file, relative to the model's folder; None where it is none of them, or cannot be parsed.
    main: str | None = None
    #: Top-level name → the first file that imports it without a try around it.
    imports: dict[str, str] = field(default_factory=dict)
    #: Files that Python cannot read → where and what is wrong, as ``:3: invalid syntax``.
    broken: dict[str, str] = field(default_factory=dict)


def read_code(folder: Path, main: str | None) -> OwnCode:
    """Look at all Python files of a model; ``main`` is the path of the one that runs, or None."""
    code = OwnCode()
    left = _MAX_PARSED_BYTES
    python = [path for path in files_below(folder) if path.suffix == ".py"]
    code.modules = [path.relative_to(folder).as_posix() for path in python[:_MAX_FILES]]
    program = Path(main).resolve() if main is not None else None
    # What runs comes first, however much there is.
    for path in sorted(python[:_MAX_FILES], key=lambda path: path.resolve() != program):
        name = path.relative_to(folder).as_posix()
        left -= path.stat().st_size
        tree = _parsed(path, name, code) if left >= 0 else None
        if tree is None:
            continue
        if path.resolve() == program:
            kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            code.defines = [node.name for node in tree.body if isinstance(node, kinds)]
            code.has_class = any(isinstance(node, ast.ClassDef) for node in ast.walk(tree))
            code.main, code.names, code.relative = name, _bound(tree), _relative(tree.body)
        for module in _imported(tree.body):
            code.imports.setdefault(module, name)
    return code


def _parsed(path: Path, name: str, code: OwnCode) -> ast.Module | None:
    try:
        if path.stat().st_size > _MAX_SOURCE_BYTES:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes and comparisons in people's code
            return ast.parse(path.read_bytes(), name)
    except SyntaxError as error:
        code.broken[name] = f":{error.lineno or 0}: {error.msg}"
    except (ValueError, RecursionError, MemoryError, OSError) as error:
        code.broken[name] = f": {type(error).__name__}: {error}"
    return None


def _bound(tree: ast.Module) -> set[str]:
    """Return the names that a module may bind, those inside of functions included: rather too many."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
    return names


def _relative(body: list[ast.stmt]) -> str | None:
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.level:
            return ast.unparse(node)
    return None


def _imported(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the top-level names of modules that importing the file imports, come what may."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
