"""Sleeps as many seconds as the body says."""

import time


def model_fn(model_dir):
    return None


def transform_fn(model, input_data, content_type, accept):
    if isinstance(input_data, (bytes, bytearray)):
        input_data = input_data.decode()
    time.sleep(float(input_data))
    return "slept", "text/plain"
