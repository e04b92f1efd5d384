"""``mmekit serve`` with the real Multi Model Server as its engine, from the environment of `make mms`."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable

from tests.support.mms import MMS, free_port
from tests.support.server import Server, until


class MmsServer(Server):
    """A Server whose engine is Multi Model Server; the same requests and the same clean-up."""

    def __init__(self, *options: str, **environ: str) -> None:
        port = free_port()
        super().__init__(*options, **{"MMEKIT_ENGINE": "mms", "SAGEMAKER_BIND_TO_PORT": str(port), **environ})
        self.port = port

    def start(self, ready: bool = True, wrap: Callable[[], None] | None = None) -> Server:
        python = MMS / "bin" / "python"
        assert python.exists(), f"there is no {python}; make it with `make mms`"
        command = "from mmekit.cli import main; main()"
        self.process = subprocess.Popen(
            [python, "-c", command, "serve", *self.options],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=wrap,
        )
        # The base class reads the log there.
        self.process.stderr = self.process.stdout
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        if ready:
            try:
                until(self._up, 60, "/ping answering 200")
            except AssertionError as error:
                self.close()
                raise AssertionError(f"{error}; its output:\n{''.join(self.raw)[-3000:]}") from None
        return self

    def _up(self) -> bool:
        assert self.process
        assert self.process.poll() is None, "".join(self.raw)
        try:
            return self.get("/ping").status == 200
        except OSError:
            return False
