"""A handler in a package of the model."""


def handle(data, context):
    return None if data is None else ["from a package"]
