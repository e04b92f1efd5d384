"""Keeps 5 MB more with each call."""

kept = []


def model_fn(model_dir):
    return None


def transform_fn(model, input_data, content_type, accept):
    kept.append(b"x" * 5_000_000)
    return str(len(kept)), "text/plain"
