#!/usr/bin/env python3
"""As multi_model.py, but a model with a file `others` runs only while at most so many others are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stub import Container, serve


class GpuMemory(Container):
    """Answers invocations with 507 while too much else is loaded, as GPU containers do."""

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        limit = Path(self.url_of(name), "others")
        if limit.is_file():
            with self.lock:
                others = len(self.models) - 1
            if others > int(limit.read_text()):
                raise self.failed(507, f"no memory with {others} other models")
        return super().invoke(name, headers, body)


if __name__ == "__main__":
    serve(GpuMemory())
