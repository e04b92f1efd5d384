"""The code that a model brings: which functions it defines, what it imports, whether Python can read it.

Source is parsed, never run.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: A module of people's own is smaller; larger ones are generated, and parsing takes its time.
_MAX_SOURCE_BYTES = 1024 * 1024
#: Brackets and the like inside each other; Python's own parser may not survive more.
_MAX_FILES = 500


@dataclass
class OwnCode:
    """``modules`` are the files, relative to the model's folder."""

    modules: list[str] = field(default_factory=list)
    #: What the program or handler file defines at its top.
    defines: list[str] = field(default_factory=list)
    #: Top-level name → the first file that imports it without a try around it.
    imports: dict[str, str] = field(default_factory=dict)
    #: Files that Python cannot read, with what is wrong.
    broken: list[str] = field(default_factory=list)


def read_code(folder: Path, main: str | None) -> OwnCode:
    """Look at all Python files of a model; ``main`` is the path of the one that runs, or None."""
    code = OwnCode()
    for path in sorted(folder.rglob("*.py"))[:_MAX_FILES]:
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or "__pycache__" in name:
            continue
        code.modules.append(name)
        tree = _parsed(path, name, code)
        if tree is None:
            continue
        if main is not None and path.resolve() == Path(main).resolve():
            kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            code.defines = [node.name for node in tree.body if isinstance(node, kinds)]
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
        code.broken.append(f"{name}:{error.lineno or 0}: {error.msg}")
    except (ValueError, RecursionError, MemoryError, OSError) as error:
        code.broken.append(f"{name}: {type(error).__name__}: {error}")
    return None


def _imported(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the top-level names of modules that importing the file imports, come what may."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
