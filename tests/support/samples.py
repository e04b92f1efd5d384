"""Models that bring a sample request."""

from __future__ import annotations

import json
from pathlib import Path

#: Program of a model that answers its calls so far and keeps what it was sent; ``{body}`` runs in each.
COUNTS = """
calls = []

def model_fn(model_dir):
    return model_dir

def transform_fn(model, input_data, content_type, accept):
    calls.append((input_data, content_type, accept))
    {body}
    return repr(calls), "text/plain"
"""


def with_sample(folder: Path, body: bytes = b"1,2", **fields: object) -> Path:
    """Put a sample request into a model's folder; ``fields`` go into its description."""
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "MAR-INF/sample-request").write_bytes(body)
    description = {"contentType": "text/csv", **fields}
    (folder / "MAR-INF/sample-request.json").write_text(json.dumps(description))
    return folder
