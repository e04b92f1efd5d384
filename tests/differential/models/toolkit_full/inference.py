"""All functions of sagemaker-inference."""

import os

from sagemaker_inference import encoder


def pre_model_fn(model_dir):
    os.environ["PRE_MODEL"] = "called"


def model_fn(model_dir):
    return [os.environ["PRE_MODEL"], sorted(os.listdir(model_dir))]


def model_warmup_fn(model_dir, model):
    model.append("warm")


def input_fn(data, content_type):
    return bytes(data) if not isinstance(data, str) else data


def predict_fn(data, model):
    return [str(data), *model]


def output_fn(prediction, accept):
    return encoder.encode(prediction, "application/json"), "x/y"
