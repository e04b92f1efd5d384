"""A service on a base class for MXNet."""

from mms.model_service.mxnet_model_service import MXNetBaseService


class Service(MXNetBaseService):
    pass
