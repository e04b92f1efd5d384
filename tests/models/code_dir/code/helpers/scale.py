def scaled(data, factor):
    return data * factor
