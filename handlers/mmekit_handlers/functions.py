"""The user's own functions: which ones a module has, and whether each takes a context.

The convention is that of sagemaker-inference (SIT: transformer.py): any subset of the eight names,
each with an optional trailing context argument.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from mmekit.errors import ModelLoadError

#: Names of the functions and of their arguments; each may have one more, the context.
ARGUMENTS = {
    "pre_model_fn": ("model_dir",),
    "model_fn": ("model_dir",),
    "model_warmup_fn": ("model_dir", "model"),
    "input_fn": ("input_data", "content_type"),
    "predict_fn": ("data", "model"),
    "output_fn": ("prediction", "accept"),
    "transform_fn": ("model", "input_data", "content_type", "accept"),
}

#: What ``transform_fn`` stands for, so it cannot be beside them.
_REPLACED_BY_TRANSFORM = ("input_fn", "predict_fn", "output_fn")


@dataclass(frozen=True, slots=True)
class UserFunction:
    """One function of the user's; called with a context always, which it gets if it asked for it."""

    name: str
    place: str
    call: Callable[..., Any]
    takes_context: bool

    def __call__(self, *args: Any) -> Any:
        """Call it; the last argument is the context."""
        return self.call(*args) if self.takes_context else self.call(*args[:-1])


@dataclass(frozen=True, slots=True)
class UserFunctions:
    """The functions of one module; None where the framework's handler does the work."""

    file: str
    pre_model_fn: UserFunction | None = None
    model_fn: UserFunction | None = None
    model_warmup_fn: UserFunction | None = None
    input_fn: UserFunction | None = None
    predict_fn: UserFunction | None = None
    output_fn: UserFunction | None = None
    transform_fn: UserFunction | None = None
    #: The module says ``row_wise = True``: its functions may be given stacked rows.
    row_wise: bool = False

    @classmethod
    def of(cls, module: ModuleType) -> UserFunctions:
        """Collect a module's functions; raises ``ModelLoadError`` when they cannot be called as they are."""
        file = getattr(module, "__file__", None) or module.__name__
        found = {name: _function(module, name, file) for name in ARGUMENTS if hasattr(module, name)}
        beside = [name for name in _REPLACED_BY_TRANSFORM if name in found]
        if "transform_fn" in found and beside:
            raise ModelLoadError(
                f"{file} defines transform_fn and also {', '.join(beside)}; "
                "transform_fn does the work of all three, so keep either it or them"
            )
        return cls(file=file, row_wise=getattr(module, "row_wise", False) is True, **found)

    @property
    def handle_requests(self) -> bool:
        """Say whether any of them is called per request."""
        return any((self.input_fn, self.predict_fn, self.output_fn, self.transform_fn))

    @property
    def predict(self) -> UserFunction | None:
        """The function that does the predicting, if the user wrote one."""
        return self.predict_fn or self.transform_fn


def _function(module: ModuleType, name: str, file: str) -> UserFunction:
    function = getattr(module, name)
    place = _place(function, file)
    if not callable(function):
        raise ModelLoadError(f"{file}: {name} is a {type(function).__name__}; expected a function")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ModelLoadError(f"{place}: {name} is async; expected an ordinary function")
    return UserFunction(name, place, function, _takes_context(function, name, place))


def _takes_context(function: Callable[..., Any], name: str, place: str) -> bool:
    expected = ARGUMENTS[name]
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):  # a builtin: it has no signature to count
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    must_be_named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    count = len(expected)
    if must_be_named or len(required) > count + 1 or (len(positional) < count and not takes_any):
        signature = ", ".join(expected)
        raise ModelLoadError(
            f"{place}: {name} takes ({', '.join(p.name for p in parameters)}); "
            f"expected ({signature}) or ({signature}, context)"
        )
    if len(positional) <= count:
        return False
    extra = positional[count]
    # A further argument with a default of its own, such as ``threshold=0.5``, is not the context.
    return extra.default is extra.empty or extra.name in ("context", "ctx")


def _place(function: object, file: str) -> str:
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else file
