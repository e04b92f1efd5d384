"""``mms.model_service.model_service``: what services of MMS 0.4 derive from.

``signature.json``, named in the manifest, says what the input is called and of which type it is.
"""

from __future__ import annotations

import ast
import json
import os
from typing import Any


class ModelService:
    """A service with ``inference(data)``, which gets a list with the one input."""

    def __init__(
        self, model_name: str, model_dir: str, manifest: dict[str, Any], gpu: int | None = None
    ) -> None:
        self.ctx: Any = None
        self._context: Any = None
        self._signature: Any = None

    def initialize(self, context: Any) -> None:
        """Read the signature. Raises ``ValueError`` when the file that the manifest names is not there."""
        self._context = context
        name = (context.manifest or {}).get("Model", {}).get("Signature", "signature.json")
        file = os.path.join(context.system_properties["model_dir"], name)
        if not os.path.isfile(file):
            raise ValueError(f"Signature file is not found: {name} (Model.Signature in MANIFEST.json).")
        with open(file, encoding="utf-8") as opened:
            self._signature = json.load(opened)

    def inference(self, data: list[Any]) -> Any:
        """Return a list with the one answer, or the answer."""
        raise NotImplementedError(f"{type(self).__name__} does not define inference(data)")

    def ping(self) -> Any:
        return None

    def signature(self) -> Any:
        return self._signature

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """Answer the first request; its input has the signature's name, or is ``body`` or ``data``."""
        row = data[0]
        names = (self._signature["inputs"][0]["data_name"], "body", "data")
        value = next((row[name] for name in names if row.get(name) is not None), None)
        if self._signature["input_type"] == "application/json" and isinstance(value, bytes | bytearray):
            value = _parsed(value.decode("utf-8"))
        result = self.inference([value])
        return result if isinstance(result, list) else [result]


class SingleNodeService(ModelService):
    """A service in three steps, each of which may be overridden."""

    def inference(self, data: list[Any]) -> Any:
        return self._postprocess(self._inference(self._preprocess(data)))

    def _preprocess(self, data: Any) -> Any:
        return data

    def _inference(self, data: Any) -> Any:
        return data

    def _postprocess(self, data: Any) -> Any:
        return data


def _parsed(text: str) -> Any:
    """Read JSON, and the Python literals that MMS reads instead of it."""
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text)
