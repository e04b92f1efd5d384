"""The user's functions in the folder that the other AWS images read them from."""


def model_fn(model_dir):
    return 3


def predict_fn(data, model):
    return data * model
