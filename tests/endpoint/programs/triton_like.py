#!/usr/bin/env python3
"""Triton's SageMaker front end as a container: stricter than the contract where Triton is.

Source: triton-inference-server/server at e1db8a6, src/sagemaker_server.cc and .h. Triton registers, unloads
and invokes models under X-Amzn-SageMaker-Target-Model. Where that is missing it falls back to the model's
name, which cannot work when other calls had it; here that is 400 at once. Paths need not begin with /opt/ml.
"""

from __future__ import annotations

import re
from typing import Any

from stub import TARGET, Answered, Container, Handler, serve

# model_path_regex_
URL = re.compile(r"(.*/models/([0-9A-Za-z._]+)/model)(/[0-9A-Za-z._]+)?")


class Triton(Container):
    """Keeps models by the target header beside their names."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, str] = {}  #: target → name

    def failed(self, status: int, message: str) -> Answered:
        return Answered(status, {"error": message} if status != 404 else b"")

    def list_models(self, token: str) -> dict[str, Any]:
        """List empty objects: Triton asks itself for the name, and knows the model by its target only."""
        super().list_models(token)
        return {"models": [{} for _ in self.models]}

    def load(self, name: str, url: str, target: str | None) -> None:
        target = self.required(target)
        shape = URL.fullmatch(url)
        if shape is None or shape[2] != name:
            raise self.failed(400, f"Invalid \"url\" '{url}': expected …/models/<hash>/model[/<subdir>]")
        if self.names.get(target, name) != name:
            raise self.failed(409, f"model '{target}' is registered already")
        try:
            super().load(name, url, target)
        except Answered as answered:
            # No folder, and all else but conflicts and memory, is 400.
            if answered.status in (409, 507):
                raise
            raise self.failed(400, f"failed to load '{target}'") from None
        self.names[target] = name

    def unload(self, name: str, target: str | None) -> None:
        self.url_of(name)
        self.check(name, target)
        super().unload(name, target)
        del self.names[self.required(target)]

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        self.url_of(name)
        self.check(name, headers.get(TARGET))
        return super().invoke(name, headers, body)

    def check(self, name: str, target: str | None) -> None:
        if self.names.get(self.required(target)) != name:
            raise self.failed(400, f"Request for unknown model: '{target}' is not found")

    def required(self, target: str | None) -> str:
        if target is None:
            raise self.failed(400, f"{TARGET} is missing")
        return target


class TritonHandler(Handler):
    """Answers 400 for routes that are not there."""

    def answer(self) -> Any:
        if not re.fullmatch(r"/(ping|invocations|models(/[^/]+)?(/invoke)?)", self.path.partition("?")[0]):
            raise Answered(400)
        return super().answer()


if __name__ == "__main__":
    serve(Triton(), TritonHandler)
