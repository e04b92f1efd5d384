def model_fn(model_dir):
    return None


def predict_fn(data, model):
    raise KeyError("label")
