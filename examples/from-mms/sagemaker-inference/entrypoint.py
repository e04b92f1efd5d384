"""Serves until the server ends, as the entry points of AWS's framework containers do."""

from sagemaker_inference import model_server

model_server.start_model_server(handler_service="handler_service")
