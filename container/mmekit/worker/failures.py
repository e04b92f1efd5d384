"""Exceptions of people's code → ``messages.Failure``: what was raised, its text, and where in their code."""

from __future__ import annotations

import importlib
import logging
import os
import traceback
from collections.abc import Sequence
from typing import Literal, TypeAlias

import mmekit
import mmekit_handlers
from mmekit.artifact import find_handler_file
from mmekit.errors import MmekitError, OutOfResources
from mmekit.worker.messages import Failure
from mmekit_handlers.base import is_out_of_memory

_log = logging.getLogger("mmekit.model")

Phase: TypeAlias = Literal["load", "invoke"]

#: Longest message that is answered, in characters; the log has the whole.
MAX_MESSAGE = 4096
#: Longest traceback that is logged, in characters: the beginning and the end are kept.
MAX_TRACEBACK = 64 * 1024

#: MMS gives all failures of model code this type, whatever the status (MMS: HttpRequestHandler.java).
_TYPE = MmekitError.type
_PREFIX = {"load": "Failed to start workers: ", "invoke": "Prediction failed: "}
_NO_MEMORY = {"load": "Failed to start workers: out of memory: ", "invoke": "Out of resources: "}
#: Code in which no place is named: ours, and the import system's.
_NO_PLACE = ("<frozen", mmekit.__path__[0], mmekit_handlers.__path__[0], os.path.dirname(importlib.__file__))


class HandlerRaised(MmekitError):
    """Raised around an exception of an MMS style handler, which is answered with 503 as by MMS.

    The exception itself is the ``__cause__``.
    """

    status = 503


def failure_of(error: BaseException, code_dirs: Sequence[str], phase: Phase) -> Failure:
    """Describe an exception for the caller.

    ``code_dirs`` are the folders of the user's own code; the place given is the innermost line
    there, else the innermost outside of this package.
    """
    status = 500
    if isinstance(error, HandlerRaised) and error.__cause__ is not None:
        status, error = error.status, error.__cause__
    if isinstance(error, MmekitError):
        if error.status == OutOfResources.status:
            return Failure(error.status, _TYPE, _bounded(_NO_MEMORY[phase] + error.message))
        prefix = _PREFIX["load"] if phase == "load" and error.status >= 500 else ""
        return Failure(error.status, error.type, _bounded(prefix + error.message))
    if _is_out_of_memory(error):
        return Failure(
            OutOfResources.status, _TYPE, _bounded(f"{_NO_MEMORY[phase]}{_described(error, code_dirs)}")
        )
    if isinstance(error, SystemExit):
        doing = "loading" if phase == "load" else "predicting"
        text = f"{_PREFIX[phase]}the code called {_exit(error)} while {doing}{_place(error, code_dirs)}"
        return Failure(status, _TYPE, _bounded(text))
    if (told := _own_status(error)) is not None and phase == "invoke":
        message = getattr(error, "message", None)
        return Failure(told, _TYPE, _bounded(_text(error if message is None else message)))
    return Failure(status, _TYPE, _bounded(f"{_PREFIX[phase]}{_described(error, code_dirs)}"))


def is_success(error: BaseException) -> bool:
    """Whether it is a ``PredictionException`` with the code 200, which MMS answers as a success."""
    if isinstance(error, HandlerRaised) and error.__cause__ is not None:
        error = error.__cause__
    return _is_prediction_exception(error) and _own_status(error) == 200


def let_go(error: BaseException) -> None:
    """Drop the tracebacks of an exception that was described and logged, and of those it came from.

    Their frames hold the call's bodies, and often the exception: only the collector would free them.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            BaseException.with_traceback(current, None)  # not people's own, which could do anything
            waiting += [current.__cause__, current.__context__]


def log_failure(error: BaseException, model: str, failure: Failure) -> None:
    """Log a failure; with its traceback unless it is the caller's mistake or ours by design."""
    if isinstance(error, HandlerRaised) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, MmekitError) and error.__cause__ is None:
        _log.log(logging.INFO if failure.status < 500 else logging.ERROR, "%s: %s", model, failure.message)
        return
    _log.error("%s: %s\n%s", model, failure.message, traceback_text(error))


def traceback_text(error: BaseException) -> str:
    """Return the whole traceback; the middle is left out beyond 64 KiB."""
    text = "".join(traceback.format_exception(error)).rstrip()
    if len(text) <= MAX_TRACEBACK:
        return text
    half = MAX_TRACEBACK // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def _described(error: BaseException, code_dirs: Sequence[str]) -> str:
    """Return class, message and place; for a syntax error also the line it is in."""
    name = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        file = _below(error.filename, code_dirs) or os.path.basename(error.filename)
        line = f": {error.text.strip()}" if error.text else ""
        return f"{name}: {error.msg} ({file}:{error.lineno}){line}"
    text = _text(error)
    described = (f"{name}: {text}" if text else name) + _place(error, code_dirs)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{described}; {_why_not_found(error.name, code_dirs)}"
    return described


def _why_not_found(module: str, code_dirs: Sequence[str]) -> str:
    top, _, inner = module.partition(".")
    if inner and top == "mms":
        return f"Multi Model Server 1.1 has no {module}"
    if inner and find_handler_file(top, code_dirs):
        return f"the model's {top} has no {inner}"
    return f"{top} is neither in the model's code nor in this image"


def _is_out_of_memory(error: BaseException) -> bool:
    try:
        return is_out_of_memory(error)
    except Exception:  # noqa: BLE001 - it reads the texts, and __str__ is the user's code too
        return False


def _text(error: object) -> str:
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001 - see above
        return f"<its text cannot be made: {type(second).__name__}>"


def _exit(error: SystemExit) -> str:
    # The code may be any object; exit("message") is common.
    return f"exit({'' if error.code is None else repr(error.code)})"


def _own_status(error: BaseException) -> int | None:
    """Return the status that an exception brings: MMS's PredictionException, sagemaker-inference's errors."""
    lowest = 200 if _is_prediction_exception(error) else 400
    for name in ("error_code", "status_code"):
        code = getattr(error, name, None)
        if isinstance(code, int) and not isinstance(code, bool):
            return code if lowest <= code <= 599 else 500
    return None


def _is_prediction_exception(error: BaseException) -> bool:
    """Whether it is MMS's, from this package or an installed one, or derived from it."""
    return any(kind.__name__ == "PredictionException" for kind in type(error).__mro__)


def _place(error: BaseException, code_dirs: Sequence[str]) -> str:
    """Return `` (file:line)`` of the innermost frame in the user's code, or an empty text."""
    if isinstance(error, SyntaxError) and error.filename:
        return ""  # the description has it
    own = other = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if (relative := _below(file, code_dirs)) is not None:
            own = f" ({relative}:{line})"
        elif not file.startswith(_NO_PLACE):
            other = f" ({os.path.basename(file)}:{line})"
    return own or other or ""


def _below(file: str, code_dirs: Sequence[str]) -> str | None:
    for folder in code_dirs:
        prefix = os.path.abspath(folder) + os.sep
        if file.startswith(prefix):
            return file[len(prefix) :]
    return None


def _bounded(text: str) -> str:
    """Return a text that can be sent: lone surrogates escaped, and not too long."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= MAX_MESSAGE:
        return text
    return f"{text[: MAX_MESSAGE - 40]}… ({len(text)} characters, see the log)"
