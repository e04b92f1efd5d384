"""Every function takes the context."""


def model_fn(model_dir, context):
    return context.system_properties["model_dir"]


def input_fn(input_data, content_type, context):
    return context.get_request_header(0, "x-amzn-sagemaker-custom-attributes")


def predict_fn(data, model, context):
    return f"{data} in {model.rsplit('/', 1)[-1]}"


def output_fn(prediction, accept, context):
    context.set_response_header(0, "X-Note", "seen")
    context.set_response_status(202, "Accepted", 0)
    return prediction, "text/plain"
