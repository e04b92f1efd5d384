"""The image's own handler in tests of processes: a request is a Python expression, answered as JSON.

Models without code of their own share workers, so this looks into any worker of a server.
"""

import gc  # noqa: F401 - for expressions
import json
import os  # noqa: F401
import random  # noqa: F401
import subprocess  # noqa: F401
import sys  # noqa: F401
import threading  # noqa: F401
import time  # noqa: F401

kept = []


def handle(data, context):
    """MMS style: called with None once at the load."""
    if data is None:
        return None
    return [json.dumps(eval(row["body"].decode(), globals())) for row in data]


def process_status(field):
    """Return a field of /proc/self/status."""
    with open("/proc/self/status") as file:
        return next(line.partition(":")[2].strip() for line in file if line.startswith(field + ":"))
