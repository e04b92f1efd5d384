"""transform_fn alone, with the context."""


def model_fn(model_dir, context):
    return context.model_name


def transform_fn(model, input_data, content_type, accept, context):
    return f"{model} {type(input_data).__name__} {content_type} {accept}", "text/plain"
