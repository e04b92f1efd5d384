"""What is done by default; a model's own inference.py may replace each of these."""

import json
import os

import numpy as np
from sagemaker_inference import content_types, decoder, encoder, errors
from sagemaker_inference.default_inference_handler import DefaultInferenceHandler


class LinearInferenceHandler(DefaultInferenceHandler):
    def default_model_fn(self, model_dir, context=None):
        with open(os.path.join(model_dir, "weights.json")) as file:
            return json.load(file)

    def default_input_fn(self, input_data, content_type, context=None):
        if content_type not in (content_types.JSON, content_types.CSV):
            raise errors.UnsupportedFormatError(content_type)
        return np.atleast_2d(decoder.decode(input_data, content_type))

    def default_predict_fn(self, data, model, context=None):
        return data @ np.array(model["weights"]) + model["bias"]

    def default_output_fn(self, prediction, accept, context=None):
        return encoder.encode(prediction, accept), accept
