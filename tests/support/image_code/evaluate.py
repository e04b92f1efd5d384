"""The image's own handler in tests of processes: a request is a Python expression, answered as JSON.

Models without code of their own share workers, so this looks into any worker of a server.
"""

import gc  # noqa: F401 - for expressions
import json
import os
import random  # noqa: F401
import subprocess  # noqa: F401
import sys  # noqa: F401
import threading  # noqa: F401
import time

kept = []


def handle(data, context):
    """MMS style: called with None once at the load."""
    if data is None:
        return None
    return [json.dumps(eval(row["body"].decode(), globals())) for row in data]


def stay(path):
    """Touch a file, so that a test sees the call run, and stay until the test removes it."""
    open(path, "w").close()
    while os.path.exists(path):
        time.sleep(0.005)
    return "stayed"


def process_status(field):
    """Return a field of /proc/self/status."""
    with open("/proc/self/status") as file:
        return next(line.partition(":")[2].strip() for line in file if line.startswith(field + ":"))
