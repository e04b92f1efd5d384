def model_fn(model_dir):
    raise ValueError("no weights in this folder")


def predict_fn(data, model):
    return data
