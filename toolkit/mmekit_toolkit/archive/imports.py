"""What a pickle's imports mean for those who load it: a framework, the model's own code, or a danger."""

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Container, Iterable

from mmekit_toolkit.archive.environment import Environment
from mmekit_toolkit.archive.pickle_values import Global


class Kind(str, enum.Enum):
    """What becomes of an import."""

    #: numpy, scikit-learn, XGBoost, PyTorch and what they pickle, and harmless parts of Python.
    EXPECTED = "expected"
    #: A module of the model's own code.
    OWN = "own code"
    #: A module that the environment has.
    INSTALLED = "installed"
    #: Nobody has it.
    MISSING = "missing"
    #: A class of the script that wrote the pickle.
    SCRIPT = "script"
    #: Code that travels in the pickle (cloudpickle, dill).
    INLINE = "code in the pickle"
    #: Of Python's own library, and nothing that models pickle.
    UNUSUAL = "unusual"
    #: It runs commands, opens files or sockets, or runs text as code: no model needs it.
    DANGEROUS = "dangerous"


_FRAMEWORKS = frozenset(
    {"numpy", "scipy", "sklearn", "joblib", "pandas", "xgboost", "lightgbm", "catboost", "torch", "skops"}
)
_HARMLESS = frozenset(
    {"_codecs", "array", "collections", "copy_reg", "copyreg", "datetime", "decimal", "enum", "fractions"}
    | {"functools", "itertools", "math", "numbers", "operator", "pathlib", "random", "re", "string"}
    | {"types", "typing", "uuid", "weakref", "abc", "dataclasses", "zoneinfo", "_operator", "_random"}
    | {"_collections_abc", "bisect", "calendar", "contextvars", "heapq", "ipaddress", "json", "queue"}
    | {"statistics", "struct", "textwrap", "time", "unicodedata"}
)
#: Of modules that are otherwise not.
_HARMLESS_NAMES = re.compile(
    r"logging\.(getLogger|Logger|RootLogger)|inspect\.(Signature|Parameter\w*|_\w+Kind)"
)
#: Modules of which nothing belongs into a model.
_DANGEROUS_MODULES = frozenset(
    {"os", "posix", "nt", "subprocess", "_posixsubprocess", "commands", "popen2", "sys", "shutil", "pty"}
    | {"socket", "_socket", "ssl", "http", "urllib", "urllib2", "httplib", "requests", "aiohttp", "httpx"}
    | {"ftplib", "smtplib", "telnetlib", "poplib", "imaplib", "socketserver", "xmlrpc", "webbrowser"}
    | {"runpy", "code", "codeop", "importlib", "imp", "pkgutil", "zipimport", "ctypes", "_ctypes", "cffi"}
    | {"pip", "ensurepip", "venv", "setuptools", "distutils", "pdb", "bdb", "cProfile", "profile", "timeit"}
    | {"trace", "doctest", "signal", "_signal", "multiprocessing", "asyncio", "threading", "_thread"}
    | {"marshal", "pickle", "_pickle", "shelve", "dbm", "gc", "atexit", "faulthandler", "mmap"}
    | {"pydoc", "idlelib", "lib2to3", "_pyrepl", "_osx_support", "_aix_support", "platform", "sysconfig"}
    | {"tempfile", "glob", "fileinput", "linecache", "site", "getpass", "fcntl", "resource"}
)
#: Single functions, for modules that are otherwise fine.
_DANGEROUS_NAMES = re.compile(
    r"(builtins|__builtin__)\."
    r"(eval|exec|execfile|compile|open|file|__import__|input|raw_input|breakpoint|exit|quit|globals|locals"
    r"|vars|setattr|delattr|memoryview|help|reload)(\..*)?"
    r"|(io|_io|_pyio)\.(open|open_code|FileIO|OpenWrapper|TextIOWrapper)"
    # Python 3.13 says pathlib._local.PosixPath.
    r"|pathlib\.(?!_local\.[^.]+$)[^.]+\..+|_?operator\.(methodcaller|attrgetter)"
    r"|numpy\.(load|loadtxt|genfromtxt|fromfile|memmap|save|savetxt|f2py\..*|distutils\..*)"
    r"|numpy\.(testing|lib\.npyio|lib\._npyio_impl|ctypeslib).*|numpy\..*\b(runstring|exec_mod_from_location)"
    r"|torch\.(hub|utils\.(cpp_extension|model_zoo|collect_env|bottleneck|_config_module)|fx\.experimental|testing"
    r"|jit\.unsupported_tensor_ops|distributed\.run|distributed\.launcher|distributed\.rpc|package|_inductor|_dynamo)\..*"
    r"|torch\.(load|serialization\.load|jit\.load|ops\.load_library)|torch\.classes\.load_library"
    r"|joblib\.(load|dump|Memory|memory\..*|_utils\.eval_expr|numpy_pickle\.load)"
    r"|pandas\.(read_.*|eval|io\..*|core\.computation\..*)|scipy\.io\..*"
    r"|types\.(FunctionType|LambdaType)|(dataclasses|uuid)\._\w+|typing\.(ForwardRef|get_type_hints|_eval_type)"
    r"|sklearn\.datasets\..*\b(fetch|load|dump)_\w+|xgboost\.(tracker|dask|spark)\..*"
)
#: What brings code, or a further pickle, along inside the pickle.
_INLINE = re.compile(r"(.+\.)?(cloudpickle|dill|_dill)\b.*|types\.CodeType|torch\.storage\._load_from_bytes")
#: Modules that others import, as ``_sys``, too, so that a name may lead through them, and what is looked for
#: there; numpy has a function ``trace``.
_REACHED = frozenset(
    {
        "os",
        "posix",
        "nt",
        "sys",
        "subprocess",
        "builtins",
        "importlib",
        "shutil",
        "socket",
        "ctypes",
        "pickle",
        "bltns",
        "modules",
        "system",
        "popen",
    }
)
#: Functions by which copyreg makes objects.
_DUNDERS = frozenset({"__newobj__", "__newobj_ex__"})
_SCRIPTS = frozenset({"__main__", "__mp_main__"})
_BUILTINS = frozenset({"builtins", "__builtin__"})


def kind_of(found: Global, own: Container[str], environment: Environment) -> Kind:
    """Return what an import is; ``own`` are the top-level modules of the model's code.

    ``__torch__`` is TorchScript's name for the model's own classes, which are in the archive.
    """
    top = found.module.partition(".")[0]
    if top in _SCRIPTS:
        return Kind.SCRIPT
    # Before the model's own: a module that Python has imported already, such as os, cannot be replaced.
    if top in _DANGEROUS_MODULES or _DANGEROUS_NAMES.fullmatch(str(found)) or _reaches_through(found):
        return Kind.DANGEROUS
    if top in own:
        return Kind.OWN
    if _INLINE.fullmatch(str(found)):
        return Kind.INLINE
    if top in _BUILTINS or top in _HARMLESS or top == "__torch__":
        return Kind.EXPECTED
    if top in sys.stdlib_module_names:
        return Kind.EXPECTED if _HARMLESS_NAMES.fullmatch(str(found)) else Kind.UNUSUAL
    if not environment.has_module(top):
        return Kind.MISSING
    return Kind.EXPECTED if top in _FRAMEWORKS else Kind.INSTALLED


def _reaches_through(found: Global) -> bool:
    """Say whether a name goes through a harmless module to another: ``sklearn.utils`` has ``os.system``."""
    parts = {*found.name.split(".")} - _DUNDERS
    return any(_is_reached(part) or (part.startswith("__") and part.endswith("__")) for part in parts)


def _is_reached(part: str) -> bool:
    return part.lstrip("_") in _REACHED


def reaching(attributes: Iterable[str]) -> list[str]:
    """Return those of the names that getattr takes from an object which lead to Python itself.

    Others are how bound methods and members of enumerations are pickled.
    """
    return sorted(name for name in attributes if name.startswith("__") or _is_reached(name))


def of_kind(kinds: dict[Global, Kind], kind: Kind) -> list[str]:
    """Return the names of all imports of a kind, sorted."""
    return sorted(str(found) for found, which in kinds.items() if which is kind)


def top_modules(names: Iterable[str]) -> list[str]:
    """Return the top-level modules of names, sorted, each once."""
    return sorted({name.partition(".")[0] for name in names})
