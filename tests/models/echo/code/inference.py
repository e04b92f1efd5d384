"""Answers with the body it was given."""


def model_fn(model_dir):
    return None


def transform_fn(model, input_data, content_type, accept):
    return input_data, content_type or "application/octet-stream"
