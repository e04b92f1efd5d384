"""Answers with what it was given: each input's type and value, and the request's headers."""


def _shown(value):
    return value.decode("latin-1") if isinstance(value, (bytes, bytearray)) else value


def handle(data, context):
    if data is None:
        return None
    answers = []
    for index, row in enumerate(data):
        inputs = {name: [type(value).__name__, _shown(value)] for name, value in sorted(row.items())}
        headers = context.get_all_request_header(index)
        names = sorted((name for name in headers if name.lower() != "host"), key=str.lower)
        answers.append({"inputs": inputs, "headers": {name: headers[name] for name in names}})
    return answers
