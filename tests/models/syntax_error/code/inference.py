def model_fn(model_dir):
    return {"a": 1


def predict_fn(data, model):
    return data
