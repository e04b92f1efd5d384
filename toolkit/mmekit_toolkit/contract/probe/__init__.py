"""The kit's own model: a folder that Multi Model Server, mmekit and their like load without any setting.

``MAR-INF/MANIFEST.json`` names the handler ``service.py:handle``, of MMS's kind: ``handle(data, context)``,
called once with ``data=None`` to load (MMS: mms/model_loader.py). Small files say what the model is like:

=============  =================================================================================
``identity``   text by which it is told from other copies
``hold-mib``   how many MiB it fills with bytes and holds while it is loaded; 0 without the file
``broken``     when the file is there, the load raises RuntimeError with the file's text
=============  =================================================================================

A request's *body* says what is wanted, since a server may change headers:

==============================================  ==============================================================
``{"probe": "facts", ...}``                     JSON: ``identity``; ``headers``, the request's by lower-case
                                                name; ``body_bytes``. Other keys are padding.
``{"probe": "answer", "bytes": N}``             N times the letter ``a``, ``application/octet-stream``
``{"probe": "wait", "seconds": S}``             ``facts``, after S seconds
any other body                                  the same body, with the request's own ``Content-Type``
==============================================  ==============================================================

Every answer carries the request's ``X-Amzn-SageMaker-Custom-Attributes``, where it had some. Other servers
may play this model by reading the same files: the kit asks for nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path

#: The handler as the manifest names it.
HANDLER = "service.py:handle"

_MANIFEST = {
    "runtime": "python",
    "model": {"modelName": "probe", "handler": HANDLER},
    "specificationVersion": "1.0",
    "implementationVersion": "1.0",
    "modelServerVersion": "1.0",
}


def write(folder: Path, identity: str, hold_mib: int = 0, broken: str = "") -> None:
    """Make the model in an empty folder that is there; ``broken`` is what its load raises."""
    (folder / "MAR-INF").mkdir()
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(_MANIFEST, indent=2))
    (folder / "service.py").write_bytes((Path(__file__).parent / "service.py").read_bytes())
    (folder / "identity").write_text(identity)
    if hold_mib:
        (folder / "hold-mib").write_text(str(hold_mib))
    if broken:
        (folder / "broken").write_text(broken)


def facts(padded_to_bytes: int = 0) -> bytes:
    """Return the body that asks for facts; padding makes it exactly that long."""
    question = json.dumps({"probe": "facts"})
    missing = padded_to_bytes - len(json.dumps({"probe": "facts", "padding": ""}))
    if missing >= 0:
        question = json.dumps({"probe": "facts", "padding": "a" * missing})
    return question.encode()


def answer(size_bytes: int) -> bytes:
    """Return the body that asks for so many letters ``a``."""
    return json.dumps({"probe": "answer", "bytes": size_bytes}).encode()


def wait(seconds: float) -> bytes:
    """Return the body that asks for facts, later."""
    return json.dumps({"probe": "wait", "seconds": seconds}).encode()
