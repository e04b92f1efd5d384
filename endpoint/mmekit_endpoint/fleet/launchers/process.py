"""Runs instances as processes of this machine: `mmekit serve`, or a program that people name.

Nothing is isolated: the instance's limits are settings of the program, and its folder takes the place of
/opt/ml. All processes of an instance end with the one that was started, as in a container.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

from mmekit.process import THREAD_VARIABLES, describe_exit, die_with_parent
from mmekit.process_table import boot_id, family_memory, read_row
from mmekit_endpoint.errors import LaunchFailed
from mmekit_endpoint.fleet.launchers import STOP_TIMEOUT_S, Order, Usage, process_record
from mmekit_endpoint.fleet.launchers.gpus import gpu_use
from mmekit_endpoint.fleet.launchers.process_record import TOKEN_VARIABLE, ProcessRecord
from mmekit_endpoint.fleet.launchers.waiting import finished_or_undone

#: This Python's own mmekit, whether or not its scripts are on PATH.
_MMEKIT = [sys.executable, "-c", "from mmekit.cli import main; main(prog_name='mmekit')"]

#: Below those that Linux, unless told otherwise, gives to whoever asks for any (ip(7), ip_local_port_range):
#: a program opens its port only a while after it was told. Multi Model Server takes none from 32767 on.
_PORTS = range(20000, 32000)

#: Variables of the service's own shell that would change what a server does.
_SERVER_PREFIXES = ("SAGEMAKER_", "MMEKIT_", "MMS_")
_SERVER_VARIABLES = {*THREAD_VARIABLES, "MAX_CONTENT_LENGTH"}


class ProcessLauncher:
    """Starts instances as processes; ``program`` is run as ``PROGRAM serve``, None is this mmekit.

    To be used in the thread of the event loop, which must live as long as the instances: the kernel ends
    them with the thread that started them (prctl(2), PR_SET_PDEATHSIG).
    """

    name = "process"

    def __init__(self, program: str | None, state: Path, stop_timeout_s: float = STOP_TIMEOUT_S) -> None:
        self._program = program
        self._records = state.resolve() / "processes"
        self._stop_timeout_s = stop_timeout_s
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="process-launcher")
        #: By instance.
        self._running: dict[str, RunningProcess] = {}
        #: Those of instances that run or are about to.
        self._ports: set[int] = set()

    async def launch(self, order: Order) -> RunningProcess:
        """Start the program with ``serve``. Raises LaunchFailed with a reason for people."""
        return await finished_or_undone(self._launch(order), RunningProcess.stop)

    async def clean(self) -> list[str]:
        """End processes that a killed service of this state folder left; return their instances."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._clean)

    async def close(self) -> None:
        """Let go of the threads; instances must have been stopped."""
        self._threads.shutdown(wait=False)

    async def _launch(self, order: Order) -> RunningProcess:
        command = [*self._command(), "serve"]
        port = self._take_port()
        token = f"{order.instance_id} {secrets.token_hex(16)}"
        try:
            process = await _spawn(
                command, order, environment(order, port, os.environ) | {TOKEN_VARIABLE: token}
            )
        except BaseException:
            self._ports.discard(port)
            raise
        row = read_row(process.pid)
        started = row.started if row else 0  # it has ended, or there is no /proc: nothing is ever found
        record = ProcessRecord(order.instance_id, process.pid, started, boot_id(), token)
        running = RunningProcess(process, record, order, port, self._stop_timeout_s, self._threads)
        self._running[order.instance_id] = running
        running.ended.add_done_callback(lambda _: self._forget(order.instance_id, port))
        try:
            process_record.write(self._records, record)
        except OSError as error:
            await running.stop()
            raise LaunchFailed(f"The instance's process cannot be written down: {error}.") from error
        return running

    def _command(self) -> list[str]:
        if self._program is None:
            return _MMEKIT
        if found := shutil.which(self._program):
            return [str(Path(found).absolute())]  # the instance's folder becomes the working directory
        if os.path.dirname(self._program):
            raise LaunchFailed(f"The program {self._program} does not exist, or is not an executable file.")
        raise LaunchFailed(f"The program {self._program} is in none of the folders of PATH.")

    def _take_port(self) -> int:
        """Return a port of loopback that is free now and that no other instance was given."""
        first = random.randrange(len(_PORTS))  # another service begins elsewhere
        for port in chain(_PORTS[first:], _PORTS[:first]):
            if port in self._ports:
                continue
            with socket.socket() as sock:
                try:
                    sock.bind(("127.0.0.1", port))
                except OSError:
                    continue
            self._ports.add(port)
            return port
        raise LaunchFailed(f"No port of loopback is free between {_PORTS.start} and {_PORTS.stop}.")

    def _forget(self, instance_id: str, port: int) -> None:
        self._running.pop(instance_id, None)
        self._ports.discard(port)
        process_record.forget(self._records, instance_id)

    def _clean(self) -> list[str]:
        ended = []
        for record in process_record.read_all(self._records):
            if record.instance_id in self._running:
                continue
            if record.end():
                ended.append(record.instance_id)
            process_record.forget(self._records, record.instance_id)
        return ended


class RunningProcess:
    """An instance that runs as a process, with all that this one starts."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        record: ProcessRecord,
        order: Order,
        port: int,
        stop_timeout_s: float,
        threads: ThreadPoolExecutor,
    ) -> None:
        self.address = ("127.0.0.1", port)
        self.models_path = f"{order.folder.resolve()}/models"
        self.resolved_image: str | None = None
        self._process = process
        self._record = record
        self._resources = order.resources
        self._stop_timeout_s = stop_timeout_s
        self._threads = threads
        self._cpu_seconds = 0.0
        self._stopping: asyncio.Task[None] | None = None
        #: Done when all processes of the instance have ended, with how the first one did.
        self.ended = asyncio.create_task(self._end())

    async def wait(self) -> str:
        """Return when it has ended, with how."""
        return await asyncio.shield(self.ended)

    async def stop(self) -> None:
        """Send SIGTERM, SIGKILL after the time for that; return when it has ended."""
        if self._stopping is None:
            # A second SIGTERM would ask for haste.
            self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def usage(self) -> Usage | None:
        """Return memory and CPU time of all its processes; None where it has ended."""
        if self.ended.done():
            return None
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._measure)

    async def _stop(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        await asyncio.wait([self.ended], timeout=self._stop_timeout_s)
        if self._process.returncode is None:
            self._kill_group()
        await asyncio.shield(self.ended)

    async def _end(self) -> str:
        code = await self._process.wait()
        self._kill_group()  # in a container the end of the first process is that of all
        await asyncio.get_running_loop().run_in_executor(self._threads, self._record.end)
        return describe_exit(-code if code < 0 else code << 8)

    def _kill_group(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except OSError:
            pass  # nobody is left in it

    def _measure(self) -> Usage | None:
        rows, size_bytes, _ = family_memory(self._process.pid)
        if not rows:
            return None
        # What ended and was waited for by nobody of the family is lost from the sum, which must not fall.
        self._cpu_seconds = max(self._cpu_seconds, sum(row.cpu_seconds for row in rows))
        gpu = gpu_use(self._resources.gpus)
        return Usage(
            # Where the kernel does not say what forks share, that counts in each.
            sum(row.resident_bytes for row in rows) if size_bytes is None else size_bytes,
            self._resources.memory_bytes,
            self._cpu_seconds,
            gpu_percent=gpu.percent if gpu else None,
            gpu_memory_percent=gpu.memory_percent if gpu else None,
        )


def environment(order: Order, port: int, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an instance's process.

    From the weakest: those of the service without what speaks to servers, the instance's limits, the
    container's own, and what must be as it is: where to listen, which is loopback, and which folder.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if not name.startswith(_SERVER_PREFIXES) and name not in _SERVER_VARIABLES
    }
    given = order.resources
    limits = {
        "MMEKIT_MEMORY_LIMIT_BYTES": str(given.memory_bytes),
        "MMEKIT_WORKERS": str(given.cpus),
    }
    if given.gpus:
        limits["MMEKIT_MAX_GPUS"] = str(given.gpus)
    else:
        limits |= {"MMEKIT_NUMBER_OF_GPU": "0", "CUDA_VISIBLE_DEVICES": ""}
    fixed = {
        "MMEKIT_HOST": "127.0.0.1",
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SAGEMAKER_BASE_DIR": str(order.folder.resolve()),
    }
    if order.container.multi_model:
        fixed["SAGEMAKER_MULTI_MODEL"] = "true"
    return kept | limits | order.container.environment | fixed


async def _spawn(command: list[str], order: Order, variables: dict[str, str]) -> asyncio.subprocess.Process:
    """Start the process in a session of its own. Raises LaunchFailed."""
    try:
        with open(order.log, "ab") as log:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=order.folder,
                env=variables,
                start_new_session=True,
                preexec_fn=partial(_die_with_service, os.getpid()),
            )
    except (OSError, ValueError) as error:  # ValueError: a variable that no process can have
        raise LaunchFailed(f"`{' '.join(command)}` cannot be started in {order.folder}: {error}.") from error


def _die_with_service(service: int) -> None:
    """Runs between fork and exec: let the kernel end this process with the service."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != service:
        os._exit(1)  # the service had ended before the kernel was asked
