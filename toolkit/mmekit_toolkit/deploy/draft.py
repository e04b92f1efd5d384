"""A plan in the making: steps in order, and what is otherwise than described."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmekit_toolkit.deploy.requests import Request, Step


@dataclass
class Draft:
    """Steps, and why they are not mere creations."""

    #: There is an endpoint that stays. What was left of one that is not is put right without a word.
    serving: bool
    steps: list[Step] = field(default_factory=list)
    #: What is there and is otherwise than described, one a line; empty where things are only missing.
    differences: list[str] = field(default_factory=list)

    @property
    def requests(self) -> list[Request]:
        """The steps that are requests."""
        return [step for step in self.steps if isinstance(step, Request)]

    def add(self, step: Step) -> None:
        """Add a step."""
        self.steps.append(step)

    def differs(self, text: str) -> None:
        """Note a difference; each once."""
        if self.serving and text not in self.differences:
            self.differences.append(text)
