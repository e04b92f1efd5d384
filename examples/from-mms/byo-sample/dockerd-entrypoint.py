"""Starts the model server when the container is run with `serve`, else the command it is given."""

import shlex
import subprocess
import sys

from retrying import retry
from sagemaker_inference import model_server

HANDLER = "/home/model-server/model_handler.py:handle"


def _can_be_tried_again(error):
    return isinstance(error, (subprocess.CalledProcessError, OSError))


@retry(stop_max_delay=50_000, retry_on_exception=_can_be_tried_again)
def _start_model_server():
    model_server.start_model_server(handler_service=HANDLER)


def main():
    if sys.argv[1] == "serve":
        _start_model_server()
    else:
        subprocess.check_call(shlex.split(" ".join(sys.argv[1:])))
    # Keep the container, whatever became of the server.
    subprocess.call(["tail", "-f", "/dev/null"])


main()
