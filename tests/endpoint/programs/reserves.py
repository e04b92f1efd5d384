#!/usr/bin/env python3
"""As multi_model.py, but there is room for one model, and a load takes it when it begins."""

from __future__ import annotations

from stub import Container, serve


class Reserves(Container):
    """Answers loads with 507 while another is loaded or loading."""

    loading = 0

    def load(self, name: str, url: str, target: str | None) -> None:
        with self.lock:
            if self.models or self.loading:
                raise self.failed(507, "no memory")
            self.loading += 1
        try:
            self.behave("load", url)
            with self.lock:
                self.models[name] = url
        finally:
            self.loading -= 1


if __name__ == "__main__":
    serve(Reserves())
