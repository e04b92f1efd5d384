"""A handler service for Multi Model Server with the steps of those in AWS's images.

``sagemaker-inference``'s transformer around default functions: for XGBoost those of the
sagemaker-xgboost-container in algorithm mode (the delimiter is sniffed, strings become floats in
numpy, a DMatrix is predicted), for scikit-learn and torch the toolkit's decoder and encoder as the
framework containers use them.
"""

from __future__ import annotations

import csv
import os
from typing import Any

import numpy

# mypy: disable-error-code="import-not-found"
# sagemaker-inference is in the environment of Multi Model Server only.
from sagemaker_inference import decoder, encoder
from sagemaker_inference.default_handler_service import DefaultHandlerService
from sagemaker_inference.default_inference_handler import DefaultInferenceHandler
from sagemaker_inference.transformer import Transformer


class HandlerService(DefaultHandlerService):  # type: ignore[misc]  # the toolkit has no types
    """The one class of this module, as MMS wants it; the functions are an inner class."""

    class Functions(DefaultInferenceHandler):  # type: ignore[misc]  # the toolkit has no types
        """Default functions for any of the frameworks, chosen by the model's file."""

        def default_model_fn(self, model_dir: str, context: Any = None) -> Any:
            path = os.path.join(model_dir, next(f for f in os.listdir(model_dir) if f.startswith("model.")))
            self.is_xgboost = path.endswith((".ubj", ".json"))
            if self.is_xgboost:
                import xgboost

                booster = xgboost.Booster()
                booster.load_model(path)
                booster.set_param({"nthread": 1})
                return booster
            if path.endswith(".pt"):
                import torch

                return torch.jit.load(path).eval()  # type: ignore[no-untyped-call]  # torch's gap
            import joblib

            return joblib.load(path)

        def default_input_fn(self, input_data: Any, content_type: str, context: Any = None) -> Any:
            if not self.is_xgboost:
                data = decoder.decode(input_data, content_type).astype(numpy.float32)
                return data.reshape(1, -1) if data.ndim == 1 else data
            import xgboost

            text = input_data.strip()
            found = csv.Sniffer().sniff(text.split("\n")[0][:512]).delimiter
            delimiter = "," if found.isalnum() else found
            rows = [[field or "nan" for field in line.split(delimiter)] for line in text.split("\n")]
            return xgboost.DMatrix(numpy.array(rows).astype(float))

        def default_predict_fn(self, data: Any, model: Any, context: Any = None) -> Any:
            if self.is_xgboost:
                return model.predict(data, validate_features=False)
            if hasattr(model, "predict"):
                return model.predict(data)
            import torch

            with torch.no_grad():
                return model(torch.from_numpy(data)).numpy()

        def default_output_fn(self, prediction: Any, accept: str, context: Any = None) -> Any:
            return encoder.encode(prediction, accept)

    def __init__(self) -> None:
        super().__init__(transformer=Transformer(default_inference_handler=self.Functions()))
