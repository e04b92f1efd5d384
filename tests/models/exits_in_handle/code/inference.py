import sys


def model_fn(model_dir):
    return None


def transform_fn(model, input_data, content_type, accept):
    sys.exit("giving up")
