"""Counts its calls in a global, the one of the load included."""

calls = 0


def handle(data, context):
    global calls
    calls += 1
    return [str(calls)]
