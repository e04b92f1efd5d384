"""The handler service: one class, which the model server finds by itself."""

from inference_handler import LinearInferenceHandler
from sagemaker_inference.default_handler_service import DefaultHandlerService
from sagemaker_inference.transformer import Transformer


class HandlerService(DefaultHandlerService):
    def __init__(self):
        super().__init__(transformer=Transformer(default_inference_handler=LinearInferenceHandler()))
