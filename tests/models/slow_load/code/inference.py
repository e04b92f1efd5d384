import time


def model_fn(model_dir):
    time.sleep(1.5)
    return "slow"


def transform_fn(model, input_data, content_type, accept):
    return model, "text/plain"
