def model_fn(model_dir):
    return None


def transform_fn(model, input_data, content_type, accept):
    return parts(), "text/plain"


def parts():
    yield "part 0\n"
    raise RuntimeError("the second part failed")
