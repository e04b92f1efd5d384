"""A function by another name than `handle`."""

import helper


def predict(data, context):
    return None if data is None else [helper.ANSWER for _ in data]
