"""Takes as many seconds as the body says."""

import time


def handle(data, context):
    if data is None:
        return None
    time.sleep(float(bytes(data[0]["body"]).decode() or 0))
    return ["slept"]
