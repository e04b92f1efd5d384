"""Leaves a process running that would outlive it."""

import subprocess


def model_fn(model_dir):
    return None


def transform_fn(model, input_data, content_type, accept):
    return str(subprocess.Popen(["sleep", "300"]).pid), "text/plain"
