"""The real Multi Model Server (`make mms`) and mmekit in its place, from the same config.properties."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Self

from mmekit.process_table import family, read_table
from tests.support.server import until
from tests.support.wire import Reply, request, talk

MMS = Path(__file__).parent.parent.parent / "build" / "mms"

#: Variables of the surrounding shell that would change what a server does.
_FOREIGN = ("SAGEMAKER_", "MMEKIT_", "MMS_", "OMP_", "PYTHON", "MAX_CONTENT_LENGTH", "LOG_LOCATION", "TEMP")


#: Below those that the kernel gives to clients. Each is tried once: engines that start at the same time never
#: get the same one, though none of them listens yet.
_PORTS = iter(random.sample(range(20000, 32000), 12000))


def free_port() -> int:
    """Return a free port that Multi Model Server takes: it refuses 32767 and above."""
    for port in _PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port from 20000 to 31999")


class Engine:
    """One server in a session and a folder of its own; a context manager that leaves nothing behind."""

    name: ClassVar[str]

    def __init__(self, folder: Path, properties: dict[str, str], environ: dict[str, str]) -> None:
        """``properties`` are written to config.properties; addresses are added where they say none."""
        self.folder = folder
        self.folder.mkdir(parents=True)
        self.properties = dict(properties)
        if "inference_address" not in properties:
            self.properties["inference_address"] = f"http://127.0.0.1:{free_port()}"
            self.properties["management_address"] = f"http://127.0.0.1:{free_port()}"
        temp = folder / "tmp"
        temp.mkdir()
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)},
            "TEMP": str(temp),
            "TMPDIR": str(temp),
            "LOG_LOCATION": str(folder / "logs"),
            "METRICS_LOCATION": str(folder / "logs"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environ,
        }
        self.config = folder / "config.properties"
        self.config.write_text("".join(f"{key}={value}\n" for key, value in self.properties.items()))
        self.output = folder / "output.log"

    def command(self) -> list[str]:
        raise NotImplementedError

    @property
    def inference(self) -> str:
        return self.properties["inference_address"]

    @property
    def management(self) -> str:
        return self.properties["management_address"]

    # --- life --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        try:
            until(self._up, 60, f"{self.name} answering /ping")
        except BaseException as error:  # noqa: BLE001 - nothing is left behind, also after Ctrl-C
            self.close()
            raise AssertionError(f"{error}; its output:\n{self.text()[-3000:]}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _up(self) -> bool:
        assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}"
        try:
            return talk(self.inference, request("GET", "/ping"), ["GET"], 5)[0].status == 200
        except OSError:
            return False

    def close(self) -> None:
        """Ask it to stop, then end whatever of its session or of its workers is left."""
        known = self._family()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(self.patience_s)
        for pid in known | self._family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)

    #: How long a server may take to stop by itself.
    patience_s: ClassVar[float] = 10

    def _family(self) -> set[int]:
        """Its session and all below it: workers may have sessions of their own."""
        return {row.pid for row in family(read_table(), self.process.pid)}

    # --- what it says ------------------------------------------------------------------------

    def text(self) -> str:
        """What it has printed and logged so far."""
        files = [self.output, *sorted((self.folder / "logs").glob("*.log"))]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Iterable[tuple[str, str]] = (),
        on: str = "inference",
        timeout_s: float = 60,
    ) -> Reply:
        """Send one request to the connector ``on``, inference or management."""
        address = self.inference if on == "inference" else self.management
        return talk(address, request(method, path, headers, body), [method], timeout_s)[0]


class Mms(Engine):
    """Multi Model Server 1.1.11."""

    name = "mms"
    # The command only waits for Java, and Java has nothing to finish.
    patience_s = 0

    def __init__(self, folder: Path, properties: dict[str, str], environ: dict[str, str]) -> None:
        super().__init__(folder, properties, environ)
        # The runtime python3 is the command of that name, and it must find the package mms.
        self._environ["PATH"] = f"{MMS / 'bin'}{os.pathsep}{self._environ['PATH']}"

    def command(self) -> list[str]:
        command = MMS / "bin" / "multi-model-server"
        assert command.exists(), f"there is no {command}; make it with `make mms`"
        return [str(command), "--start", "--foreground", "--mms-config", str(self.config)]


class Mmekit(Engine):
    """mmekit, by the module that images put on PATH as `multi-model-server`."""

    name = "mmekit"

    def command(self) -> list[str]:
        module = [sys.executable, "-m", "mmekit.model_server"]
        return [*module, "--start", "--foreground", "--mms-config", str(self.config)]


ENGINES: tuple[type[Engine], ...] = (Mms, Mmekit)
