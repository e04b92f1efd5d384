def predict(data):
    return data
