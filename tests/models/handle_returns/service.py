"""Returns what the body names."""


def handle(data, context):
    if data is None:
        return None
    body = bytes(data[0]["body"]).decode()
    if body == "inject":
        context.set_response_header(0, "X-Note", "a\r\nX-Evil: b")
    if body == "number header":
        context.set_response_header(0, "X-Note", 7)
    if body == "status 99":
        context.set_response_status(99, "odd", 0)
    if body == "no content":
        context.set_response_status(204, "", 0)
    return {
        "dict": {"not": "a list"},
        "too many": ["a", "b"],
        "object": [object()],
        "bytes": [b"\x00\xff"],
        "text": ["grüße"],
        "json": [{"b": [1, 2.5, None, True]}],
        "generator": [iter([b"one ", "two"])],
        "bare generator": iter(["three ", "four"]),
    }.get(body, ["ok"])
