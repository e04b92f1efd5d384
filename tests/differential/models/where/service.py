"""Answers with where it runs."""

import os


def handle(data, context):
    if data is None:
        return None
    return [
        {
            "folder": os.path.basename(os.getcwd()),
            "sees_itself": os.path.exists("service.py"),
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "module": __name__,
        }
    ]
