"""Leaves when it is loaded."""

import sys


def handle(data, context):
    sys.exit(4)
