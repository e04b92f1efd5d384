"""Where an archive would run, as far as a check needs it: Python, modules, distributions, settings."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from packaging.utils import canonicalize_name

from mmekit import requirements
from mmekit.requirements import Distribution


class Environment(requirements.Environment):
    """This Python, which stands for the image when none is named."""

    #: How a sentence calls it.
    name = "this environment"
    #: Whether an archive will run just here: then what is missing is a fault, else it may be no matter.
    is_image = False
    #: Variables of the image, such as SAGEMAKER_PROGRAM; this process's own say nothing of it.
    variables: Mapping[str, str] = {}

    @property
    def python(self) -> str:
        """Python's version."""
        return platform.python_version()

    def has_module(self, top: str) -> bool:
        """Say whether a top-level module can be imported; nothing is."""
        if top in sys.stdlib_module_names or top in sys.builtin_module_names:
            return True
        try:
            return importlib.util.find_spec(top) is not None
        except (ImportError, ValueError):
            return False

    def version(self, *distributions: str) -> str | None:
        """Return the version of the first of these distributions that is installed."""
        for name in distributions:
            if found := self.distribution(name):
                return found.version
        return None


@dataclass(frozen=True)
class ImageEnvironment(Environment):
    """What a container of an image answered (``image.py``)."""

    image: str
    python_version: str
    modules: frozenset[str] = field(repr=False)
    distributions: Mapping[str, Distribution] = field(repr=False)
    image_markers: Mapping[str, str] = field(repr=False)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: The image's own program, a path in it; None when there is none.
    program: str | None = None

    is_image = True

    @property
    def name(self) -> str:  # type: ignore[override]  # a constant of the other class
        return f"the image {self.image}"

    @property
    def markers(self) -> Mapping[str, str]:  # type: ignore[override]  # a constant of the other class
        return self.image_markers

    @property
    def python(self) -> str:
        return self.python_version

    def has_module(self, top: str) -> bool:
        return top in self.modules

    def distribution(self, name: str) -> Distribution | None:
        return self.distributions.get(canonicalize_name(name))
