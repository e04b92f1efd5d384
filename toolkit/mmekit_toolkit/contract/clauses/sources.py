"""Where the rules are written."""

from __future__ import annotations

from typing import Final

_GUIDE = "https://docs.aws.amazon.com/sagemaker/latest/dg"

#: The API of multi-model containers.
APIS: Final = f"{_GUIDE}/mms-container-apis.html"
#: How containers are started, stopped and asked.
INFERENCE_CODE: Final = f"{_GUIDE}/your-algorithms-inference-code.html"
#: Labels of images for multi-model endpoints.
BUILD: Final = f"{_GUIDE}/build-multi-model-build-container.html"
#: Ports of containers that share a host.
PIPELINE: Final = f"{_GUIDE}/inference-pipeline-real-time.html"
#: What callers of multi-model endpoints see.
MULTI_MODEL: Final = f"{_GUIDE}/multi-model-endpoints.html"
#: Sizes and headers of an invocation.
INVOKE_ENDPOINT: Final = (
    "https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html"
)
#: What the page of multi-model endpoints does not say was seen on real ones.
OBSERVED: Final = "https://github.com/pytorch/serve/issues/1028"
#: AWS's own tests mount the models read-only.
AWS_TESTS: Final = (
    "https://github.com/aws/sagemaker-xgboost-container"
    "/blob/master/test/integration/local/test_multiple_model_endpoint.py"
)
