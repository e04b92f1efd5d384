"""Runs a pickle's opcodes without importing or calling anything: what would be imported, what would be made.

pickletools.genops tells opcodes; which strings a STACK_GLOBAL takes only the stack tells, and a pickle
that hides them is the one to be found. So this keeps stack and memo as pickle.Unpickler does, with
``pickle_values`` in them.
"""

from __future__ import annotations

import lzma
import pickletools
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from mmekit.errors import MmekitError
from mmekit_toolkit.archive import joblib_arrays
from mmekit_toolkit.archive.pickle_source import OverLimit, Source
from mmekit_toolkit.archive.pickle_values import UNKNOWN, Blob, Global, Thing, Value

#: Texts that may be names; longer ones are not followed.
_MAX_TEXT_BYTES = 4096
#: Bytes of whole numbers that are followed.
_MAX_NUMBER_BYTES = 16
#: Entries of one container that are followed.
_MAX_ITEMS = 10_000
#: Contents whose ends are kept, and how long they must be for that.
_MAX_BLOBS = 64
_MIN_BLOB_BYTES = 128
#: Opcodes between two looks at the clock.
_TICK = 4096
#: Arrays of objects inside each other, in joblib's files.
_MAX_DEPTH = 20
#: Different names that are told; a model has dozens.
_MAX_GLOBALS = 10_000

_GETATTR = frozenset({Global("builtins", "getattr"), Global("__builtin__", "getattr")})
_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}


@dataclass
class Pickle:
    """What one pickle says."""

    protocol: int = 0
    #: What it imports, in order, each once.
    globals: dict[Global, None] = field(default_factory=dict)
    #: What it takes with getattr from objects that are made, not imported.
    attributes: dict[str, None] = field(default_factory=dict)
    #: What it makes; UNKNOWN when it was not read to its end.
    root: Value = UNKNOWN
    #: Why it was not read to its end, None when it was.
    problem: str | None = None
    #: The reason is in the file: whoever loads it fails.
    is_damaged: bool = False
    #: It computes a name that it imports or takes, hands getattr on, or asks the registry of copyreg: no
    #: honest pickle does.
    hides_imports: bool = False


def scan(source: Source) -> Pickle:
    """Read one pickle to its STOP; what is wrong with it is told, never raised."""
    found = Pickle()
    try:
        found.root = _Machine(source, found, 0).run()
        return found
    except OverLimit as error:
        found.problem = str(error)
        return found
    except EOFError:
        found.problem = "it ends before the pickle does"
    except _Broken as error:
        found.problem = str(error)
    except _DAMAGED as error:
        found.problem = f"it is damaged ({error})"
    found.is_damaged = True
    return found


#: What decompressors and positions that are none raise.
_DAMAGED = (OSError, ValueError, OverflowError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, MmekitError)


class _Broken(Exception):
    """Raised for bytes that are no pickle."""


class _Mark:
    pass


_MARK = _Mark()


class _Machine:
    def __init__(self, source: Source, found: Pickle, depth: int) -> None:
        self._source = source
        self._found = found
        self._depth = depth
        self._stack: list[Value] = []
        self._memo: dict[int, Value] = {}
        self._blobs = 0

    def run(self) -> Value:
        number = 0
        while True:
            number += 1
            if number % _TICK == 0:
                self._source.check_time()
            code = self._source.read(1)[0]
            opcode = _OPCODES.get(code)
            if opcode is None:
                raise _Broken(f"it is no pickle, or damaged: {bytes([code])!r} is no opcode")
            argument = _ARGUMENTS[opcode.arg.name](self) if opcode.arg else None
            if opcode.name == "STOP":
                return self._pop()
            _STEPS[opcode.name](self, argument)

    # --- stack -----------------------------------------------------------------------------

    def _push(self, value: Value) -> None:
        self._stack.append(value)

    def _pop(self) -> Value:
        if not self._stack:
            raise _Broken("it is no pickle, or damaged: an opcode finds nothing to work on")
        return self._stack.pop()

    def _top(self) -> Value:
        if not self._stack:
            raise _Broken("it is no pickle, or damaged: an opcode finds nothing to work on")
        return self._stack[-1]

    def _pop_to_mark(self) -> list[Value]:
        for index in range(len(self._stack) - 1, -1, -1):
            if self._stack[index] is _MARK:
                items = self._stack[index + 1 :]
                del self._stack[index:]
                return self._plain(items)
        raise _Broken("it is no pickle, or damaged: a mark is missing")

    def _plain(self, items: list[Value]) -> list[Value]:
        """Return items that something is made of; getattr among them would be called where nobody sees it."""
        if not self._found.globals.keys().isdisjoint(_GETATTR) and any(
            isinstance(item, Global) and item in _GETATTR for item in items
        ):
            self._found.hides_imports = True
        return items

    # --- arguments -------------------------------------------------------------------------

    def _length(self, width: int) -> int:
        return int.from_bytes(self._source.read(width), "little")

    def _text(self, size: int, encoding: str = "utf-8") -> Value:
        if size > _MAX_TEXT_BYTES:
            self._source.skip(size)
            return UNKNOWN
        return self._source.read(size).decode(encoding, "replace")

    def _bytes(self, size: int) -> Value:
        if size < _MIN_BLOB_BYTES or self._blobs >= _MAX_BLOBS:
            self._source.skip(size)
            return UNKNOWN
        self._blobs += 1
        return Blob(size, *self._source.ends(size))

    def _number(self, size: int) -> Value:
        if size > _MAX_NUMBER_BYTES:
            self._source.skip(size)
            return UNKNOWN
        return int.from_bytes(self._source.read(size), "little", signed=True)

    def _decimal(self) -> Value:
        text = (self._source.line() or b"").rstrip(b"L")
        if text in (b"00", b"01"):  # INT of protocols 0 and 1 for False and True
            return text == b"01"
        return int(text) if re.fullmatch(rb"-?\d{1,20}", text) else UNKNOWN

    def _names(self) -> tuple[Value, Value]:
        return self._line(), self._line()

    def _line(self) -> Value:
        line = self._source.line()
        return UNKNOWN if line is None else line.decode("utf-8", "replace")

    def _quoted(self) -> Value:
        line = self._line()
        return line.strip("'\"") if isinstance(line, str) else line

    # --- steps -----------------------------------------------------------------------------

    def _import(self, module: Value, name: Value) -> Value:
        if not isinstance(module, str) or not isinstance(name, str):
            self._found.hides_imports = True
            return UNKNOWN
        found = Global(module, name)
        if len(self._found.globals) < _MAX_GLOBALS:
            self._found.globals[found] = None
        return found

    def _global(self, names: tuple[Value, Value]) -> None:
        self._push(self._import(*names))

    def _stack_global(self, _: None) -> None:
        name, module = self._pop(), self._pop()
        self._push(self._import(module, name))

    def _extension(self, _: int) -> None:
        self._found.hides_imports = True
        self._push(UNKNOWN)

    def _instance(self, names: tuple[Value, Value]) -> None:
        args = tuple(self._pop_to_mark())
        self._push(self._made(self._import(*names), args))

    def _object(self, _: None) -> None:
        made_by, *args = self._pop_to_mark() or [UNKNOWN]
        self._push(self._made(made_by, tuple(args)))

    def _call(self, _: None) -> None:
        args, made_by = self._pop(), self._pop()
        self._push(self._made(made_by, args))

    def _made(self, made_by: Value, args: Value) -> Value:
        if isinstance(made_by, Global) and made_by in _GETATTR:
            return self._attribute(args)
        return Thing(made_by, args)

    def _attribute(self, args: Value) -> Value:
        """Take an attribute: of what is imported, that is an import by a longer name."""
        if not isinstance(args, tuple) or len(args) < 2 or not isinstance(args[1], str):
            self._found.hides_imports = True
            return UNKNOWN
        if isinstance(args[0], Global):
            return self._import(args[0].module, f"{args[0].name}.{args[1]}")
        if len(self._found.attributes) < _MAX_GLOBALS:
            self._found.attributes[args[1]] = None
        return Thing(UNKNOWN, args)

    def _call_with_names(self, _: None) -> None:
        self._pop()
        self._call(None)

    def _build(self, _: None) -> None:
        state, made = self._pop(), self._top()
        if isinstance(made, Thing):
            made.state = state
            if made.kind == joblib_arrays.PLACEHOLDER:
                self._pass_array(made)

    def _pass_array(self, wrapper: Thing) -> None:
        """Pass over an array, which lies between the opcodes; one of objects is a pickle of its own."""
        layout = joblib_arrays.layout_of(wrapper)
        if layout is None:
            raise _Broken("an array in it cannot be passed over: its type is not one of numpy's")
        if not layout.has_objects:
            if layout.is_aligned:
                self._source.skip(self._source.read(1)[0])
            self._source.skip(layout.size_bytes)
            return
        if self._depth >= _MAX_DEPTH:
            raise _Broken("arrays in it lie too deep inside each other")
        wrapper.content = _Machine(self._source, self._found, self._depth + 1).run()

    def _append(self, _: None) -> None:
        self._extend(self._plain([self._pop()]))

    def _appends(self, _: None) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, items: list[Value]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items[: max(0, _MAX_ITEMS - len(target))])

    def _set_item(self, _: None) -> None:
        value, key = self._pop(), self._pop()
        self._update(self._plain([key, value]))

    def _set_items(self, _: None) -> None:
        self._update(self._pop_to_mark())

    def _update(self, items: list[Value]) -> None:
        target = self._top()
        if isinstance(target, dict):
            _put(target, items)

    def _get(self, index: Value) -> None:
        if index not in self._memo:
            raise _Broken("it is no pickle, or damaged: it takes what it has not kept")
        self._push(self._memo[index])

    def _keep(self, index: Value) -> None:
        self._memo[index] = self._top()

    def _memoize(self, _: None) -> None:
        self._memo[len(self._memo)] = self._top()

    def _persistent(self, _: Value) -> None:
        self._push(UNKNOWN)

    def _persistent_from_stack(self, _: None) -> None:
        self._pop()
        self._push(UNKNOWN)

    def _drop(self, _: None) -> None:
        self._pop()

    def _drop_to_mark(self, _: None) -> None:
        self._pop_to_mark()

    def _from_mark(self, make: Callable[[list[Value]], Value]) -> None:
        self._push(make(self._pop_to_mark()))

    def _tuple(self, size: int) -> None:
        items = [self._pop() for _ in range(size)]
        self._push(tuple(reversed(self._plain(items))))

    def _protocol(self, version: int) -> None:
        self._found.protocol = max(self._found.protocol, version)


def _put(target: dict[Value, Value], items: list[Value]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=False):
        if len(target) >= _MAX_ITEMS:
            return
        if isinstance(key, str | int):
            target[key] = value


def _dict(items: list[Value]) -> dict[Value, Value]:
    made: dict[Value, Value] = {}
    _put(made, items)
    return made


#: Kind of an opcode's argument (pickletools) → what reads it.
_ARGUMENTS: dict[str, Callable[[_Machine], Value]] = {
    "uint1": lambda m: m._length(1),
    "uint2": lambda m: m._length(2),
    "uint4": lambda m: m._length(4),
    "uint8": lambda m: m._length(8),
    "int4": lambda m: m._number(4),
    "long1": lambda m: m._number(m._length(1)),
    "long4": lambda m: m._number(m._length(4)),
    "decimalnl_short": _Machine._decimal,
    "decimalnl_long": _Machine._decimal,
    "floatnl": lambda m: m._source.line(),
    "float8": lambda m: m._source.read(8),
    "stringnl": _Machine._quoted,
    "stringnl_noescape": _Machine._line,
    "stringnl_noescape_pair": _Machine._names,
    "unicodestringnl": _Machine._line,
    "string1": lambda m: m._text(m._length(1), "latin-1"),
    "string4": lambda m: m._text(m._length(4), "latin-1"),
    "unicodestring1": lambda m: m._text(m._length(1)),
    "unicodestring4": lambda m: m._text(m._length(4)),
    "unicodestring8": lambda m: m._text(m._length(8)),
    "bytes1": lambda m: m._bytes(m._length(1)),
    "bytes4": lambda m: m._bytes(m._length(4)),
    "bytes8": lambda m: m._bytes(m._length(8)),
    "bytearray8": lambda m: m._bytes(m._length(8)),
}


def _pushing(value: Value) -> Callable[[_Machine, Value], None]:
    return lambda m, _: m._push(value)


#: Opcodes whose argument is what they push.
_VALUES = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
#: Name of an opcode → what it does; STOP ends the loop.
_STEPS: dict[str, Callable[[_Machine, Value], None]] = {
    **dict.fromkeys(
        _VALUES,
        _Machine._push,
    ),
    **dict.fromkeys(("FLOAT", "BINFLOAT", "EMPTY_SET", "NEXT_BUFFER"), _pushing(UNKNOWN)),
    "NONE": _pushing(None),
    "NEWTRUE": _pushing(True),
    "NEWFALSE": _pushing(False),
    "MARK": _pushing(_MARK),
    "EMPTY_TUPLE": _pushing(()),
    "EMPTY_LIST": lambda m, _: m._push([]),
    "EMPTY_DICT": lambda m, _: m._push({}),
    "LIST": lambda m, _: m._from_mark(lambda items: items[:_MAX_ITEMS]),
    "TUPLE": lambda m, _: m._from_mark(lambda items: tuple(items[:_MAX_ITEMS])),
    "DICT": lambda m, _: m._from_mark(_dict),
    "FROZENSET": lambda m, _: m._from_mark(lambda _: UNKNOWN),
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "ADDITEMS": _Machine._appends,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "POP": _Machine._drop,
    "POP_MARK": _Machine._drop_to_mark,
    "DUP": lambda m, _: m._push(m._top()),
    "GET": _Machine._get,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "PUT": _Machine._keep,
    "BINPUT": _Machine._keep,
    "LONG_BINPUT": _Machine._keep,
    "MEMOIZE": _Machine._memoize,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "INST": _Machine._instance,
    "OBJ": _Machine._object,
    "REDUCE": _Machine._call,
    "NEWOBJ": _Machine._call,
    "NEWOBJ_EX": _Machine._call_with_names,
    "BUILD": _Machine._build,
    "EXT1": _Machine._extension,
    "EXT2": _Machine._extension,
    "EXT4": _Machine._extension,
    "PERSID": _Machine._persistent,
    "BINPERSID": _Machine._persistent_from_stack,
    "PROTO": _Machine._protocol,
    "FRAME": lambda m, _: None,
    "READONLY_BUFFER": lambda m, _: None,
}
assert _STEPS.keys() | {"STOP"} >= {opcode.name for opcode in pickletools.opcodes}
