"""Functions that exclude each other."""


def model_fn(model_dir):
    return 1


def transform_fn(model, data, content_type, accept):
    return data


def predict_fn(data, model):
    return data
