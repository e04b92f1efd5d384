"""From a ``Load`` message to a callable: which code, imported how, and what it must look like.

Everything that people wrote, the image's handler included, is imported for each model anew (see
``modules``): such code keeps its model in module globals. Only subclasses of our ``Handler``, whose
instances hold the model, are shared between the models of a worker.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias

from mmekit import artifact, formats
from mmekit.errors import ModelLoadError
from mmekit.worker.context import Context, Request, context_class
from mmekit.worker.messages import Load
from mmekit.worker.modules import ModelCode
from mmekit.worker.service import Service
from mmekit.worker.warm_up import warm_up
from mmekit_handlers.base import Handler, Response
from mmekit_handlers.functions import ARGUMENTS, UserFunctions
from mmekit_handlers.transformer import Transformer

#: What a request may come to.
Result: TypeAlias = Response | BaseException

#: A Transformer or a Service.
Serve: TypeAlias = Callable[[Sequence[Request], bool], Sequence[Result]]

#: Handler classes of the image by handler string and folders: one copy of their module is enough.
_shared_classes: dict[tuple[str, tuple[str, ...]], type[Handler]] = {}


class LoadedModel:
    """A model that can be asked; ``code`` is None when all of it is built in."""

    def __init__(self, serve: Serve, batches: bool, code: ModelCode | None, code_dirs: Sequence[str]) -> None:
        self._serve = serve
        self._code = code
        #: May be given several requests in one call.
        self.batches = batches
        #: The user's own code, for ``failures``.
        self.code_dirs = list(code_dirs)
        #: Longest body of an answer; None is no limit.
        self.max_response_bytes: int | None = None

    def __call__(self, requests: Sequence[Request], alone: bool = False) -> list[Result]:
        """Answer requests, in order; an exception stands in its request's place.

        What is no ``Exception`` (``SystemExit``) passes through. Bodies may be iterators, whose
        code runs while they are read.
        """
        if self._code is None:
            return [*self._serve(requests, alone)]
        with self._code:
            results = [*self._serve(requests, alone)]
        for result in results:
            if isinstance(result, Response) and isinstance(result.body, Iterator):
                result.body = self._code.iterate(result.body)
        return results

    def close(self) -> None:
        """Let go of the model and its modules."""
        if self._code is not None:
            self._code.close()
        del self._serve


def load(message: Load, environ: Mapping[str, str]) -> LoadedModel:
    """Load a model as ``message`` says, and warm it up; ``environ`` holds the handlers' settings.

    Raises ``ModelLoadError`` with what is wrong, ``InvalidModel`` for files that are no model, and
    whatever the user's code raises, ``SystemExit`` included. Nothing of a failed load stays.
    """
    if message.gpu_id is not None:
        # Framework handlers get their settings from the environment alone.
        environ = {**environ, "MMEKIT_GPU_ID": str(message.gpu_id)}
    model = _load(message, environ)
    model.max_response_bytes = message.max_response_bytes
    try:
        warm_up(model, message.path)
    except BaseException:
        model.close()
        raise
    return model


def _load(message: Load, environ: Mapping[str, str]) -> LoadedModel:
    if built_in := _built_in_of(message):
        return _load_handler_class(_built_in(built_in), message, environ, None)
    if message.handler:
        plan = _plan_handler(message.handler, message.code_dirs)
    elif message.program:
        plan = _plan_service(message) or _plan_program(message.program, message.code_dirs)
    else:
        raise ModelLoadError(f"The load of {message.model} names no handler, program or runtime.")
    try:
        return _load_code(plan, message, environ)
    except BaseException:
        if plan.code:
            plan.code.close()
        raise


def import_built_in(message: Load) -> None:
    """Import the built-in handler that this load uses; a failure shows again when it is loaded."""
    for spec in (message.handler, message.runtime):
        if spec in formats.FRAMEWORKS:
            try:
                _handler_type(spec)
            except Exception:  # noqa: BLE001 - the load raises it again, where it is answered
                return


def _built_in_of(message: Load) -> str | None:
    """Return the built-in handler that is to serve by itself, if that is what the message says."""
    if message.handler:
        return message.handler if message.handler in formats.FRAMEWORKS else None
    return None if message.program else message.runtime


@dataclass(frozen=True)
class _Plan:
    """Which module to import and what to look for in it."""

    #: As in messages: the handler string, or the program's file.
    spec: str
    module: str
    #: None: the module is built in, or shared by all models.
    code: ModelCode | None
    #: The handler's function or class; None for programs, which are known by their functions.
    attribute: str | None = None
    #: The file that the module must turn out to be.
    file: str | None = None


def _plan_handler(handler: str, code_dirs: Sequence[str]) -> _Plan:
    module = artifact.module_of(handler)
    attribute = handler[len(module) + 1 :] or "handle"
    if artifact.is_path(module):
        file = _handler_file(handler, module, code_dirs)
        return _plan_file(handler, file, code_dirs, attribute)
    known = getattr(sys.modules.get(module), attribute, None)
    is_shared = isinstance(known, type) and issubclass(known, Handler)
    if is_shared and artifact.find_handler_file(handler, code_dirs) is None:
        return _Plan(handler, module, None, attribute)
    return _Plan(handler, module, ModelCode(code_dirs, {module.partition(".")[0]}), attribute)


def _plan_service(message: Load) -> _Plan | None:
    """Return how to load the image's handler when it is a handler service, which finds the program itself.

    That is a class in the manner of MMS, as sagemaker-inference's are, or a function of a module that is
    built on sagemaker-inference. None when there is no such: a ``Handler`` stands under the program, and
    a function serves models that bring none.
    """
    if message.runtime is None or message.runtime in formats.FRAMEWORKS:
        return None
    plan = _plan_handler(message.runtime, message.code_dirs)
    if plan.code is None:
        return None
    try:
        module = _import(plan, message)
        entry = _entry_point(module, plan)
    except BaseException:
        plan.code.close()
        raise
    if not issubclass(entry, Handler) if isinstance(entry, type) else _uses_toolkit(module):
        return plan
    plan.code.close()
    return None


def _uses_toolkit(module: ModuleType) -> bool:
    """Whether a module has classes of sagemaker-inference, or objects of such or of derived classes."""
    for value in vars(module).values():
        kind = value if isinstance(value, type) else type(value)
        if any(base.__module__.partition(".")[0] == "sagemaker_inference" for base in kind.__mro__):
            return True
    return False


def _plan_program(program: str, code_dirs: Sequence[str]) -> _Plan:
    return _plan_file(program, program, code_dirs, None)


def _plan_file(spec: str, file: str, code_dirs: Sequence[str], attribute: str | None) -> _Plan:
    folder, name = os.path.split(file)
    module = name.removesuffix(".py")
    dirs = [folder, *(other for other in code_dirs if other != folder)]
    return _Plan(spec, module, ModelCode(dirs, {module}), attribute, file)


def _handler_file(handler: str, module: str, code_dirs: Sequence[str]) -> str:
    if os.path.isabs(module):
        file = module if module.endswith(".py") else module + ".py"
        if os.path.isfile(file):
            return file
        raise ModelLoadError(f"handler {handler!r}: there is no file {file} in this image.")
    if found := artifact.find_handler_file(handler, code_dirs):
        return found
    searched = ", ".join(code_dirs) or "no folder: neither the model nor the image has code"
    raise ModelLoadError(f"handler {handler!r}: there is no file {module}; searched in {searched}.")


def _load_code(plan: _Plan, message: Load, environ: Mapping[str, str]) -> LoadedModel:
    shared = _shared_classes.get((plan.spec, tuple(message.code_dirs)))
    if shared is not None:
        return _load_handler_class(shared, message, environ, plan.code)
    module = _import(plan, message)
    functions = UserFunctions.of(module) if plan.attribute is None else None
    if functions and any(getattr(functions, name) for name in ARGUMENTS):
        return _load_functions(functions, message, environ, plan.code)
    entry = _entry_point(module, plan)
    if isinstance(entry, type) and issubclass(entry, Handler):
        if not (module.__file__ or "").startswith(message.path + os.sep):
            _shared_classes[plan.spec, tuple(message.code_dirs)] = entry
        return _load_handler_class(entry, message, environ, plan.code)
    return _load_service(entry, message, plan.code)


def _import(plan: _Plan, message: Load) -> ModuleType:
    try:
        module = (plan.code.import_module if plan.code else importlib.import_module)(plan.module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if plan.module != missing and not plan.module.startswith(missing + "."):
            raise
        raise ModelLoadError(
            f"handler {plan.spec!r}: there is no module {missing!r}, neither in the model's folder "
            f"({', '.join(message.code_dirs) or message.path}) nor in this image."
        ) from None
    if plan.file and os.path.abspath(module.__file__ or "") != os.path.abspath(plan.file):
        raise ModelLoadError(
            f"{plan.file} cannot be imported as {plan.module!r}: Python has a module of that name "
            f"({module.__file__ or 'built in'}). Give the file another name."
        )
    return module


def _load_functions(
    functions: UserFunctions, message: Load, environ: Mapping[str, str], code: ModelCode | None
) -> LoadedModel:
    assert code is not None  # programs are never built in
    with code:
        handler = _base_handler(functions, message, environ)
        transformer = Transformer(handler, functions, message.path, _contexts(message), environ)
    return LoadedModel(transformer, transformer.batches, code, message.code_dirs)


def _load_handler_class(
    kind: type[Handler], message: Load, environ: Mapping[str, str], code: ModelCode | None
) -> LoadedModel:
    if code is None:
        transformer = Transformer(kind(environ), None, message.path, _contexts(message), environ)
    else:
        with code:
            transformer = Transformer(kind(environ), None, message.path, _contexts(message), environ)
    return LoadedModel(transformer, transformer.batches, code, message.code_dirs)


def _load_service(entry: Any, message: Load, code: ModelCode | None) -> LoadedModel:
    """Load an MMS handler: a function is called once without data, a class is initialized."""
    assert code is not None  # nothing built in is written this way
    with code:
        context = _context(message)
        if isinstance(entry, type):
            service = _instance(entry, message)
            if hasattr(service, "initialize"):
                service.initialize(context)
            entry = service.handle
        else:
            entry(None, context)
    batches = message.batch_size > 1
    return LoadedModel(Service(entry, context, batches, message.decode), batches, code, message.code_dirs)


def _instance(kind: type, message: Load) -> Any:
    if _is_legacy(kind):
        return kind(message.model, message.path, _manifest(message) or {}, message.gpu_id)
    return kind()


def _is_legacy(kind: type) -> bool:
    """Whether a class derives from ModelService, ours or an installed MMS's: it is made as in MMS 0.4."""
    return any(
        base.__name__ == "ModelService" and base.__module__.startswith("mms.") for base in kind.__mro__
    )


def _entry_point(module: ModuleType, plan: _Plan) -> Any:
    """Return the named function or class, else the one class of the module (MMS: model_loader.py)."""
    attribute = plan.attribute or "handle"
    where = os.path.basename(module.__file__ or module.__name__)
    entry = getattr(module, attribute, None)
    if entry is None:
        classes = [each for each in vars(module).values() if _is_handler(each, module)]
        if legacy := sorted(filter(_is_legacy, classes), key=lambda kind: kind.__name__):
            return legacy[0]
        if len(classes) != 1:
            raise ModelLoadError(_no_entry_point(where, attribute, classes, plan))
        return classes[0]
    if isinstance(entry, type) and not issubclass(entry, Handler) and not hasattr(entry, "handle"):
        raise ModelLoadError(
            f"handler {plan.spec!r}: the class {attribute} in {where} has no handle(data, context) and is no "
            "subclass of mmekit_handlers.base.Handler."
        )
    if not callable(entry):
        raise ModelLoadError(
            f"handler {plan.spec!r}: {attribute} in {where} is a {type(entry).__name__}; expected a function "
            "or a class."
        )
    return entry


def _is_handler(value: Any, module: ModuleType) -> bool:
    """Whether a module attribute is a class of the module's own that can serve."""
    if not isinstance(value, type) or value.__module__ != module.__name__:
        return False
    return issubclass(value, Handler) or hasattr(value, "handle")


def _no_entry_point(where: str, attribute: str, classes: Sequence[type], plan: _Plan) -> str:
    found = f"{len(classes)} classes with handle" if classes else "no class with handle"
    names = f" ({', '.join(each.__name__ for each in classes)})" if classes else ""
    if plan.attribute is None:
        wanted = ", ".join(ARGUMENTS)
        return f"{where} defines none of {wanted}, no handle(data, context), and {found}{names}."
    return f"handler {plan.spec!r}: {where} has no {attribute!r}, and {found}{names}; name one of them."


def _base_handler(functions: UserFunctions, message: Load, environ: Mapping[str, str]) -> Handler | None:
    """Return the handler that supplies what a program leaves out; None when there is none to be had."""
    if message.runtime is None:
        return None
    kind = _handler_type(message.runtime)
    if kind is None:
        # The image's handler is a function, which cannot stand under a program.
        recognised = artifact.inspect(message.path).runtime
        if recognised is None:
            return None
        kind = _handler_type(recognised)
    if kind is None and functions.model_fn is None:
        kind = _built_in(message.runtime)  # says that the framework is missing
    return kind(environ) if kind else None


def _handler_type(spec: str) -> type[Handler] | None:
    """Return the Handler class of an import string; None when it is another thing or lacks its framework."""
    if spec in formats.FRAMEWORKS and not _has_module(formats.FRAMEWORKS[spec][1]):
        return None
    if artifact.is_path(artifact.module_of(spec)):
        return None  # such a string is for MMS handlers
    module = importlib.import_module(artifact.module_of(spec))
    kind = getattr(module, spec.rpartition(":")[2], None)
    return kind if isinstance(kind, type) and issubclass(kind, Handler) else None


def _built_in(spec: str) -> type[Handler]:
    """Import a built-in handler; its framework may not be in the image."""
    title, framework = formats.FRAMEWORKS.get(spec, (spec, ""))
    if framework and not _has_module(framework):
        name = artifact.module_of(spec).rpartition(".")[2]
        raise ModelLoadError(
            f"The model's files are {title}'s, and this image has no {framework}: build the image with "
            f"{name} in its FRAMEWORKS (docker build --build-arg FRAMEWORKS=…,{name})."
        )
    kind = _handler_type(spec)
    if kind is None:
        raise ModelLoadError(f"{spec} is no subclass of mmekit_handlers.base.Handler.")
    return kind


def _has_module(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


def _context(message: Load) -> Context:
    manifest = _manifest(message)
    return context_class()(message.model, message.path, manifest, message.batch_size, message.gpu_id)


def _contexts(message: Load) -> Callable[[Any], Context]:
    """Return what makes the context of each request; given None, that of the load."""
    model = _context(message)

    def new_context(request: Any) -> Context:
        return model if request is None else model.for_requests((request,))

    return new_context


def _manifest(message: Load) -> Any:
    return None if message.manifest is None else json.loads(message.manifest)
