"""What is wrong with the code that a model brings, as far as that is certain without running it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmekit import artifact
from mmekit.artifact import Artifact
from mmekit.choice import Choice
from mmekit.formats import FRAMEWORKS
from mmekit_toolkit.archive.environment import Environment
from mmekit_toolkit.archive.findings import Finding, Level, about, shown
from mmekit_toolkit.archive.own_code import OwnCode

#: What the server itself brings.
_ALWAYS_THERE = ("mmekit", "mmekit_handlers", "mms")


def of_code(
    code: OwnCode, main: str | None, found: Artifact, chosen: Choice, environment: Environment
) -> list[Finding]:
    """Return what is wrong with a model's code; ``main`` is the file that runs, None where there is none."""
    findings = [*_of_syntax(code, main, found, chosen, environment)]
    if chosen.handler and chosen.handler not in FRAMEWORKS and main is None:
        findings += _of_missing_handler(chosen.handler, found, environment)
    elif code.main is not None:
        findings += _of_entry_point(code, code.main, chosen.handler)
    if chosen.own_code:
        findings += _of_imports(code, found, environment)
    return findings


def _of_syntax(
    code: OwnCode, main: str | None, found: Artifact, chosen: Choice, environment: Environment
) -> Iterable[Finding]:
    for name, wrong in code.broken.items():
        parts = Path(name).with_suffix("").parts
        runs = main is not None and Path(main) == Path(found.path, name)
        is_fatal = chosen.own_code and (runs or not code.imports.keys().isdisjoint(parts))
        text = f"Python {environment.python} cannot read {name}{wrong}."
        yield about(Level.FAULT if is_fatal else Level.WARNING, "syntax", text, [name])


def _of_missing_handler(handler: str, found: Artifact, environment: Environment) -> Iterable[Finding]:
    module = artifact.module_of(handler)
    top = module.partition(".")[0]
    is_there = top in found.top_level_modules or environment.has_module(top)
    if artifact.is_path(module) or not is_there:
        level = Level.FAULT if environment.is_image else Level.WARNING
        text = f"there is no {module} for the handler {handler}: put it into the archive."
        yield about(level, "handler-missing", text)


def _of_entry_point(code: OwnCode, main: str, handler: str | None) -> Iterable[Finding]:
    if code.relative:
        text = (
            f"{main} has `{code.relative}`, and is in no package: name the module without the dot; those "
            "beside the file can be imported."
        )
        yield about(Level.FAULT, "relative-import", text, [main])
    wanted = (handler.partition(":")[2] or "handle") if handler else None
    is_there = code.has_class or (code.names & {wanted, "*"} if wanted else code.names)
    if not is_there:
        text = f"{main} does not define {wanted or 'any function'}, so there is nothing to call."
        yield about(Level.FAULT, "nothing-to-call", text, [main])


def _of_imports(code: OwnCode, found: Artifact, environment: Environment) -> Iterable[Finding]:
    there = {*found.top_level_modules, *_ALWAYS_THERE}
    missing = {
        module: file
        for module, file in code.imports.items()
        if module not in there and not environment.has_module(module)
    }
    if missing:
        told = [f"{module} ({file})" for module, file in missing.items()]
        advice = "" if environment.is_image else " --image IMAGE compares with the image itself."
        text = (
            f"the model's code imports {shown(told)}, which {environment.name} does not have. Install it in "
            f"the image, or put the module into code/.{advice}"
        )
        level = Level.FAULT if environment.is_image else Level.WARNING
        yield about(level, "module-missing", text, missing.values())
