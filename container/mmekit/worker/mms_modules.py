"""``import mms`` in workers: handlers written for MMS find its names without MMS being installed.

The modules lie in ``mms_api`` and are found under the name ``mms`` in workers only, after everything
that is installed: a real ``mms`` comes first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from types import ModuleType

_FOLDER = os.path.join(os.path.dirname(__file__), "mms_api")

#: Parts of MMS that are built on MXNet, and are not here.
_ON_MXNET = (
    "mms.model_service.gluon_vision_service",
    "mms.model_service.mxnet_model_service",
    "mms.model_service.mxnet_vision_service",
    "mms.utils.mxnet",
)


#: Scripts that MMS's Java server starts to look at the machine; here the server itself does.
_COLLECTORS = (
    "mms.metrics.metric_collector",
    "mms.metrics.process_memory_metric",
    "mms.metrics.system_metrics",
)


class MmsFinder(MetaPathFinder):
    """Finds ``mms`` and what is below it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where the module is, None for those that MMS has not.

        Raises ``ImportError`` for those on MXNet, and for MMS's own scripts.
        """
        top, *below = fullname.split(".")
        if top != "mms":
            return None
        if fullname in _ON_MXNET:
            raise ImportError(
                f"{fullname} needs mxnet and the package multi-model-server, which mmekit does not replace "
                "here. Install both in the image (pip install multi-model-server mxnet), or write the "
                "handler against mms.model_service.model_service.",
                name=fullname,
            )
        if fullname in _COLLECTORS:
            raise ImportError(
                f"{fullname} is a script of Multi Model Server's own and is not here: the server logs the "
                "host's metrics itself (MMEKIT_METRIC_TIME_INTERVAL_SECONDS). Handlers report theirs to "
                "context.metrics.",
                name=fullname,
            )
        place = os.path.join(_FOLDER, *below)
        if os.path.isdir(place):
            init = os.path.join(place, "__init__.py")
            return spec_from_file_location(fullname, init, submodule_search_locations=[place])
        file = place + ".py"
        return spec_from_file_location(fullname, file) if os.path.isfile(file) else None


def install() -> None:
    """Let this process find ``mms``; to call it again changes nothing."""
    if not any(isinstance(finder, MmsFinder) for finder in sys.meta_path):
        sys.meta_path.append(MmsFinder())
