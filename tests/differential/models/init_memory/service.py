"""Does not fit."""


def handle(data, context):
    if data is None:
        raise MemoryError("no room")
    return ["unreachable"]
