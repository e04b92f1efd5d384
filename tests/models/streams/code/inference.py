"""Answers in as many parts as the body says; imports a module of its own between them."""


def model_fn(model_dir):
    return None


def transform_fn(model, input_data, content_type, accept):
    if isinstance(input_data, (bytes, bytearray)):
        input_data = input_data.decode()
    return parts(int(input_data)), "text/plain"


def parts(count):
    for number in range(count):
        import numbering

        yield numbering.line(number)
