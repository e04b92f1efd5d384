"""Imports utils at the top and again, by name, in each call."""

import utils


def model_fn(model_dir):
    return utils.NAME


def transform_fn(model, input_data, content_type, accept):
    import late_utils

    return f"{model} {utils.NAME} {late_utils.NAME}", "text/plain"
