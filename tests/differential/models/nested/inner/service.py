"""A handler in a folder of the model, with a sibling and a file of the model."""

import os

import sibling


def handle(data, context):
    if data is None:
        return None
    return [f"{sibling.ANSWER}, {os.path.basename(os.getcwd())}"]
