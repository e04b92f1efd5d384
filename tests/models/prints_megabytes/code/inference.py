import sys


def model_fn(model_dir):
    return None


def transform_fn(model, input_data, content_type, accept):
    line = "x" * 999
    for _ in range(4000):
        print(line)
    print("y" * 1_000_000)
    sys.stderr.write("z" * 1_000_000)
    return "printed", "text/plain"
