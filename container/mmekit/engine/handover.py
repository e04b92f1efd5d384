"""What the starting process tells the workers of Multi Model Server, through one environment variable."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from mmekit.choice import ImageCode

#: The handler that Multi Model Server is given for every model without one of its own.
ADAPTER = "mmekit.engine.service:handle"

#: The image's own code as JSON: SAGEMAKER_HANDLER itself has to name the adapter.
_VARIABLE = "MMEKIT_MMS_IMAGE_CODE"


def to_environ(image: ImageCode) -> dict[str, str]:
    """Return the variables that ``from_environ`` reads."""
    values = {**dataclasses.asdict(image), "code_dir": image.code_dir and str(image.code_dir)}
    return {_VARIABLE: json.dumps(values), "SAGEMAKER_HANDLER": ADAPTER}


def from_environ(environ: Mapping[str, str]) -> ImageCode:
    """Return the image's code; none where no ``mmekit serve`` started the server."""
    values = json.loads(environ.get(_VARIABLE, "{}"))
    code_dir = values.pop("code_dir", None)
    return ImageCode(**values, code_dir=Path(code_dir) if code_dir else None)
