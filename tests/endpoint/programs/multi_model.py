#!/usr/bin/env python3
"""The stub as it is: a container for a multi-model endpoint, or for a single model in ``model/``."""

from __future__ import annotations

from stub import Container, serve

if __name__ == "__main__":
    serve(Container())
