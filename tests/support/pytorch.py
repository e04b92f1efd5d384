"""Small PyTorch models in each file format, and requests to send to a handler."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmekit_handlers.pytorch import PyTorchHandler


@dataclass
class Request:
    body: bytes = b""
    content_type: str | None = "application/json"
    accept: str | None = None
    custom_attributes: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Context:
    request: Request = field(default_factory=Request)
    system_properties: Mapping[str, Any] = field(default_factory=dict)

    def get_response_status(self, idx: int) -> tuple[int, str]:
        return 200, ""

    def get_response_headers(self, idx: int) -> Mapping[str, str]:
        return {}


class Net(torch.nn.Module):
    """Three numbers in, two out."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(width, 8), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class TwoInputs(torch.nn.Module):
    """Token ids and weights in, a tensor beside the ids out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 3)

    def forward(self, ids: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"vectors": self.embedding(ids).sum(1) * scale, "ids": ids}


def save_torchscript(module: torch.nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))


def served(model_dir: Path, environ: Mapping[str, str] | None = None) -> tuple[PyTorchHandler, Any]:
    handler = PyTorchHandler(environ or {})
    return handler, handler.prepare(handler.model_fn(str(model_dir)))


def answer(handler: PyTorchHandler, model: Any, request: Request) -> tuple[bytes, str]:
    context = Context(request)
    data = handler.input_fn(request.body, request.content_type, context)
    body, content_type = handler.output_fn(handler.predict_fn(data, model, context), request.accept, context)
    assert isinstance(body, bytes)
    return body, content_type


def ask(handler: PyTorchHandler, model: Any, value: object, content_type: str = "application/json") -> Any:
    """Send a value as JSON, and return what comes back."""
    return json.loads(answer(handler, model, Request(json.dumps(value).encode(), content_type))[0])


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def module_of(forward: Callable[..., Any]) -> torch.nn.Module:
    """Return a module without weights that does what ``forward`` does."""
    module = torch.nn.Module()
    module.forward = forward  # type: ignore[method-assign]
    return module
