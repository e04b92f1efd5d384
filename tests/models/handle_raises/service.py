class PredictionException(Exception):
    def __init__(self, message, error_code=500):
        super().__init__(message)
        self.message = message
        self.error_code = error_code


def handle(data, context):
    if data is None:
        return None
    wanted = bytes(data[0]["body"]).decode()
    if wanted == "422":
        raise PredictionException("the picture is too small", 422)
    if wanted == "200":
        raise PredictionException("not an error", 200)
    if wanted == "memory":
        raise MemoryError
    raise ValueError(wanted)
