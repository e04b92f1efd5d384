"""Answers with what the context says."""


class Service:
    def __init__(self):
        self.loaded = None

    def initialize(self, context):
        self.loaded = {
            "request_processor": context.request_processor is None,
            "request_ids": context.request_ids is None,
            "metrics": context.metrics is None,
        }

    def handle(self, data, context):
        processor = context.request_processor[0]
        context.set_response_status(202, "Taken", 0)
        context.set_response_header(0, "X-One", "1")
        processor.add_response_property("X-Two", "2")
        context.set_response_content_type(0, "application/json")
        properties = dict(context.system_properties)
        return [
            {
                "loaded": self.loaded,
                "model_name": context.model_name,
                "manifest": context.manifest,
                "system_properties": properties,
                "request_ids": {str(key): len(value) for key, value in context.request_ids.items()},
                "same_id": context.get_request_id(0) == context.request_ids[0],
                "request_processor": type(context.request_processor).__name__,
                "header": context.get_request_header(0, "X-Asked"),
                "header_other_case": context.get_request_header(0, "x-asked"),
                "header_missing": context.get_request_header(0, "X-Missing"),
                "property": processor.get_request_property("X-Asked"),
                "properties": sorted(processor.get_request_properties()),
                "status": list(context.get_response_status(0)),
                "status_code": processor.get_response_status_code(),
                "status_phrase": processor.get_response_status_phrase(),
                "response_headers": context.get_response_headers(0),
                "processor_headers": processor.get_response_headers(),
                "response_header": processor.get_response_header("X-One"),
                "content_type": context.get_response_content_type(0),
                "equal_to_itself": context == context,
            }
        ]
