"""The probe model's handler. It runs in foreign containers: Python 3.6 and its standard library must do.

The package's docstring, ``mmekit_toolkit/contract/probe/__init__.py``, says what it does.
"""

import json
import os
import time
from typing import Any

ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"


class Model:
    """What the load makes of the folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        if os.path.exists(self._path("broken")):
            raise RuntimeError(self._read("broken", "broken on purpose"))
        self.identity = self._read("identity", "")
        # Filled, not only reserved: pages count from the first write to them.
        self.held = b"\xa5" * (int(self._read("hold-mib", "0")) << 20)

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _read(self, name: str, default: str) -> str:
        if not os.path.exists(self._path(name)):
            return default
        with open(self._path(name)) as file:
            return file.read().strip()


#: Folder → model: a server may hold several in one process.
_models = {}  # type: dict[str, Model]


def handle(data: Any, context: Any) -> Any:  # Any: MMS ships no types
    """Load the model (``data`` is None), or answer a batch of requests."""
    folder = context.system_properties["model_dir"]
    if data is None or folder not in _models:
        _models.pop(folder, None)
        _models[folder] = Model(folder)
    if data is None:
        return None
    return [_answer(_models[folder], context, index, row) for index, row in enumerate(data)]


def _answer(model: Model, context: Any, index: int, row: Any) -> bytes:
    headers = {name.lower(): value for name, value in context.get_all_request_header(index).items()}
    body = _bytes(row.get("body", b""))
    attributes = headers.get(ATTRIBUTES)
    if attributes is not None:
        context.set_response_header(index, "X-Amzn-SageMaker-Custom-Attributes", attributes)
    wish = _wish(body)
    if wish.get("probe") == "answer":
        context.set_response_content_type(index, "application/octet-stream")
        return b"a" * int(wish["bytes"])
    if "probe" not in wish:
        context.set_response_content_type(index, headers.get("content-type", "application/octet-stream"))
        return body
    time.sleep(float(wish.get("seconds", 0)))
    context.set_response_content_type(index, "application/json")
    plain = {name: value for name, value in headers.items() if isinstance(value, str)}
    return json.dumps({"identity": model.identity, "headers": plain, "body_bytes": len(body)}).encode()


def _bytes(body: Any) -> bytes:
    """Return the body as it was sent; MMS decodes text and JSON where it is told to."""
    if isinstance(body, (bytes, bytearray)):
        return bytes(body)
    return body.encode("utf-8") if isinstance(body, str) else json.dumps(body).encode()


def _wish(body: bytes) -> Any:
    """Return the JSON object that says what is wanted, an empty one for other bodies."""
    if not body.startswith(b'{"probe"'):
        return {}
    try:
        return json.loads(body.decode("utf-8"))
    except ValueError:
        return {}
