def model_fn(model_dir):
    raise MemoryError("cannot allocate 40 GiB for the weights")


def predict_fn(data, model):
    return data
