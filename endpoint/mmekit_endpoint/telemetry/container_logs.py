"""Takes what containers print to CloudWatch Logs, from the files that the launchers append it to.

Files are found in their folder, FOLDER/ENDPOINT/VARIANT/INSTANCE.log, not by the fleet's views: the log of an
instance that did not come up is the one that people need. A file is followed as long as it is there, so an
instance that has ended is read to its end.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmekit_endpoint.fleet.views import EndpointView
from mmekit_endpoint.telemetry.log_file import LogFile
from mmekit_endpoint.telemetry.log_stream import LogStream
from mmekit_endpoint.telemetry.refusals import is_refusal

logger = logging.getLogger(__name__)

#: Between two looks, in seconds.
_PERIOD_S = 1.0

#: For how long the endpoint of a log that nobody writes to any more may be unknown, in seconds.
_PATIENCE_S = 60.0

#: How long the last look may take, in seconds.
_LAST_S = 5.0

#: Logs that a variant keeps on disk; of more, those of instances that ended long ago are deleted.
MAX_LOGS = 50
_OLD_S = 600.0


class ContainerLogs:
    """Follows all logs below ``folder`` that are written from now on.

    ``views`` is called in the event loop, ``client`` makes a boto3 client of (region, service) in a thread.
    """

    def __init__(
        self, folder: Path, views: Callable[[], list[EndpointView]], client: Callable[[str, str], Any]
    ) -> None:
        self._folder = folder
        self._views = views
        self._client = client
        #: Files of an earlier service are left alone: their lines were sent then.
        self._begun = time.time() - 1
        #: Those that are sent, and one lock: a look that was cancelled goes on beside the last one.
        self._followed: dict[Path, tuple[LogFile, LogStream]] = {}
        self._lock = threading.Lock()
        self._failing = False

    async def run(self) -> None:
        """Follow the logs until cancelled, then look once more."""
        try:
            while True:
                await asyncio.shield(self._look(at_end=False))
                await asyncio.sleep(_PERIOD_S)
        finally:
            await asyncio.wait([asyncio.ensure_future(self._look(at_end=True))], timeout=_LAST_S)

    async def _look(self, *, at_end: bool) -> None:
        if new := await asyncio.to_thread(self._new_logs):
            # Of thousands of models they take milliseconds: not at every look.
            live = self._follow(new, self._views())
            await asyncio.to_thread(_delete_old, {path.parent for path in new}, live)
        await asyncio.to_thread(self._send_new_lines, at_end)

    def _follow(self, new: list[Path], views: list[EndpointView]) -> set[str]:
        """Begin to follow logs; return the ids of all instances that are there."""
        regions = {view.name: view.region for view in views}
        for path in new:
            endpoint, variant = path.parts[-3:-1]
            if endpoint in regions and path not in self._followed:
                group = f"/aws/sagemaker/Endpoints/{endpoint}"
                stream = LogStream(regions[endpoint], group, f"{variant}/{path.stem}")
                self._followed[path] = LogFile(path), stream
        variants = (variant for view in views for variant in view.variants)
        return {instance.instance_id for variant in variants for instance in variant.instances}

    # --- in a thread

    def _new_logs(self) -> list[Path]:
        logs = self._folder.glob("*/*/*.log")
        # Those of an endpoint that is in no view are looked for a while: it was made just now, or is gone.
        since = max(self._begun, time.time() - _PATIENCE_S)
        return [path for path in logs if path not in self._followed and _changed(path) >= since]

    def _send_new_lines(self, at_end: bool) -> None:
        with self._lock:
            for path, (file, stream) in list(self._followed.items()):
                try:
                    # Nothing new is read while Logs does not answer: it waits on disk.
                    if stream.is_idle:
                        stream.put(file.read(time.monotonic(), at_end=at_end), time.time())
                except FileNotFoundError:
                    del self._followed[path]
                except OSError as error:
                    logger.warning("The log %s cannot be read: %s", path, error)
                if not self._send(stream):
                    return

    def _send(self, stream: LogStream) -> bool:
        """Send what waits for a stream; return whether going on makes sense."""
        if stream.is_idle:
            return True
        try:
            stream.send(self._client)
        except Exception as error:  # noqa: BLE001 - the border of a thread: the service goes on
            if is_refusal(error):
                logger.error("CloudWatch Logs refused %s lines of %s: %s", stream.drop(), stream.name, error)
                return True
            if not self._failing:
                self._failing = True
                logger.warning("Logs of containers cannot be sent now and wait on disk: %s", error)
            return False
        self._failing = False
        return True


def _delete_old(folders: set[Path], live: set[str]) -> None:
    """Delete what variants have too much of: a container that ends at once leaves a log each time."""
    for folder in folders:
        by_age = sorted(folder.glob("*.log"), key=_changed)
        for path in by_age[:-MAX_LOGS]:
            if path.stem not in live and _changed(path) < time.time() - _OLD_S:
                path.unlink(missing_ok=True)
                path.with_name(path.name + ".1").unlink(missing_ok=True)


def _changed(path: Path) -> float:
    """Return when a file was last written, in seconds since the epoch; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
