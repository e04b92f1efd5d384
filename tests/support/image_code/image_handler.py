"""The image's own handler in tests: each request body says what the handler does.

Models without code of their own share workers; this makes any of them echo, sleep, crash or leak.
"""

import ctypes
import json
import os
import pathlib
import signal
import sys
import time

_kept = []


def handle(data, context):
    """MMS style: called with None once at the load."""
    if data is None:
        return _load(pathlib.Path(context.system_properties["model_dir"]))
    return [_act(row["body"].decode(), context) for row in data]


def _load(folder):
    """A model's files say what its load does: take MiB for a while, or touch a file and sleep or stay."""
    heavy, slow, staying = folder / "heavy_load", folder / "slow_load", folder / "staying_load"
    if heavy.exists():
        _ = b"x" * (int(heavy.read_text()) << 20)
    if staying.exists():
        do_stay(staying.read_text(), None)
    if slow.exists():
        do_hold(slow.read_text(), None)


def _act(body, context):
    verb, _, rest = body.partition(" ")
    return getattr(sys.modules[__name__], f"do_{verb}")(rest, context)


def do_echo(rest, context):
    return rest


def do_facts(rest, context):
    facts = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "model": context.model_name,
        "model_dir": context.system_properties["model_dir"],
        "target": context.get_request_header(0, "X-Amzn-SageMaker-Target-Model"),
        "omp": os.environ.get("OMP_NUM_THREADS"),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        "oom_score_adj": int(pathlib.Path("/proc/self/oom_score_adj").read_text()),
        "tasks": len(os.listdir("/proc/self/task")),
    }
    return json.dumps(facts)


def do_random(rest, context):
    import random

    return str(random.random())


def do_sleep(rest, context):
    time.sleep(float(rest))
    return f"slept {rest}"


def do_hold(rest, context):
    """Touch a file, so that a test sees the call run, and sleep."""
    seconds, _, path = rest.partition(" ")
    pathlib.Path(path).touch()
    time.sleep(float(seconds))
    return f"held {seconds}"


def do_stay(rest, context):
    """Touch a file, so that a test sees the call run, and stay until the test removes it."""
    path = pathlib.Path(rest)
    path.touch()
    while path.exists():
        time.sleep(0.005)
    return "stayed"


def do_halves(rest, context):
    """Stream two parts; between them the call stays, as above."""

    def parts():
        yield b"first half, "
        do_stay(rest, context)
        yield b"second half"

    return parts()


def do_spin(rest, context):
    """Use a CPU until a file is there."""
    while not os.path.exists(rest):
        pass
    return "spun"


def do_segfault(rest, context):
    ctypes.string_at(0)


def do_kill(rest, context):
    os.kill(os.getpid(), signal.SIGKILL)


def do_exit(rest, context):
    os._exit(int(rest))


def do_raise(rest, context):
    raise ValueError(rest)


def do_print(rest, context):
    print(rest)
    return "printed"


def do_size(rest, context):
    return b"x" * int(rest)


def do_length(rest, context):
    return str(len(rest))


def do_leak(rest, context):
    _kept.append(bytearray(os.urandom(1) * (int(rest) << 20)))
    return f"kept {sum(map(len, _kept)) >> 20} MiB"


def do_stream(rest, context):
    count, size, pause = rest.split()

    def parts():
        for number in range(int(count)):
            yield f"{number:06d}".encode().ljust(int(size), b".")
            time.sleep(float(pause))

    return parts()


def do_header(rest, context):
    name, _, value = rest.partition("=")
    context.set_response_header(0, name, value.encode().decode("unicode_escape"))
    return "with a header"


def do_children(rest, context):
    import subprocess

    child = subprocess.Popen(["sleep", "300"])
    return str(child.pid)


def do_headers(rest, context):
    return json.dumps({name.lower(): value for name, value in context.get_all_request_header(0).items()})


def do_status(rest, context):
    context.set_response_status(int(rest), "as asked", 0)
    return "with a status"


def do_time(rest, context):
    return repr(time.monotonic())
