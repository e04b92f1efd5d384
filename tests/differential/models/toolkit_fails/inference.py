"""A model that does not load."""


def model_fn(model_dir):
    raise ValueError("no weights")
