"""Uses a module beside it and a file of the model's folder."""

import os

from helpers.scale import scaled


def model_fn(model_dir):
    with open(os.path.join(model_dir, "factor.txt")) as file:
        return float(file.read())


def predict_fn(data, model):
    return scaled(data, model)
