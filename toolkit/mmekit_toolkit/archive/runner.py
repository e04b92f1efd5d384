"""What would run a model, for people; the decision is the server's own (mmekit.choice)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mmekit.artifact import DEFAULT_PROGRAM, Artifact
from mmekit.choice import Choice, ImageCode
from mmekit.formats import FRAMEWORKS
from mmekit_toolkit.archive.environment import Environment, ImageEnvironment


def code_of(environment: Environment) -> ImageCode:
    """Return what the image brings for models without code of their own."""
    if not isinstance(environment, ImageEnvironment):
        return ImageCode()
    variables = environment.variables
    return _CodeOfImage(
        handler=variables.get("SAGEMAKER_HANDLER") or None,
        program=variables.get("SAGEMAKER_PROGRAM") or DEFAULT_PROGRAM,
        program_path=environment.program,
    )


def sentence(found: Artifact, chosen: Choice) -> str:
    """Return what runs a model: ``the built-in handler for XGBoost, …``."""
    built_in = FRAMEWORKS.get(chosen.runtime or "")
    rest = f"; what it leaves out, the built-in handler for {built_in[0]}" if built_in else ""
    if chosen.program is not None:
        owner = "the model's" if chosen.own_code else "the image's"
        name = os.path.relpath(chosen.program, found.path) if chosen.own_code else chosen.program
        return f"{owner} program {name}{rest}"
    if chosen.handler is not None:
        if chosen.handler in FRAMEWORKS:
            return f"the built-in handler for {FRAMEWORKS[chosen.handler][0]}, {chosen.handler}"
        owner = "manifest" if chosen.handler == found.handler else "image"
        return f"the handler {chosen.handler} that the {owner} names"
    assert built_in is not None  # choose() raises when there is nothing
    return f"the built-in handler for {built_in[0]}, {chosen.runtime}"


@dataclass(frozen=True)
class _CodeOfImage(ImageCode):
    """What an image brings; its files are in the image, so that it has a program is known beforehand."""

    program_path: str | None = None

    def program_file(self) -> Path | None:
        return Path(self.program_path) if self.program_path else None
