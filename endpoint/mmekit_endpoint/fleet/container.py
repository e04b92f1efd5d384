"""A container as the platform speaks to it: the calls of its contract, but for invocations.

AWS: "Custom Containers Contract for Multi-Model Endpoints" (mms-container-apis).
"""

from __future__ import annotations

import json

from mmekit_endpoint.fleet.connection import Answer, NoAnswer
from mmekit_endpoint.fleet.connections import Connections

#: AWS: "Custom Inference Code with Hosting Services": 200 within 2 s.
PING_TIMEOUT_S = 2.0

TARGET_HEADER = b"x-amzn-sagemaker-target-model"

#: Answers of the contract are short; a list of thousands of models is not.
_MAX_ANSWER_BYTES = 16 * 1024 * 1024


class Container:
    """The contract's side of one container, on connections of its own: it is heard when all calls wait."""

    def __init__(self) -> None:
        self._connections = Connections(_MAX_ANSWER_BYTES)

    def reach(self, address: tuple[str, int]) -> None:
        """Take note of where the container listens."""
        self._connections.reach(address)

    def close(self) -> None:
        """Close all connections."""
        self._connections.close()

    async def ping(self) -> None:
        """GET /ping. Raises NoAnswer with what came instead of 200 within 2 s."""
        answer = await self._connections.ask("GET", "/ping", timeout_s=PING_TIMEOUT_S)
        if answer.status != 200:
            raise NoAnswer(f"GET /ping was answered with {answer.status}{_quoted(answer)}, expected 200")

    async def check_models(self) -> None:
        """GET /models. Raises NoAnswer with what came instead of a list within 2 s."""
        answer = await self._connections.ask("GET", "/models", timeout_s=PING_TIMEOUT_S)
        if answer.status != 200:
            raise NoAnswer(f"GET /models was answered with {answer.status}{_quoted(answer)}, expected 200")
        try:
            listed = json.loads(answer.body)["models"]
        except (ValueError, TypeError, KeyError):
            listed = None
        # What is in the list is not looked at: Triton has {} for each model (src/sagemaker_server.cc).
        if not isinstance(listed, list):
            raise NoAnswer(
                'GET /models was not answered with {"models": [{"modelName": …, "modelUrl": …}]}'
                f"{_quoted(answer)}"
            )

    async def load(self, name: str, url: str, target: str, timeout_s: float) -> Answer:
        """POST /models. Raises NoAnswer."""
        body = json.dumps({"model_name": name, "url": url}).encode()
        lines = b"content-type: application/json\r\n" + target_line(target)
        return await self._connections.ask("POST", "/models", body, lines, timeout_s)

    async def describe(self, name: str, target: str) -> Answer:
        """GET /models/NAME: 404 says that it is not loaded. Raises NoAnswer."""
        return await self._connections.ask(
            "GET", f"/models/{name}", lines=target_line(target), timeout_s=PING_TIMEOUT_S
        )

    async def unload(self, name: str, target: str, timeout_s: float) -> Answer:
        """DELETE /models/NAME; when it returns the memory is free. Raises NoAnswer."""
        return await self._connections.ask(
            "DELETE", f"/models/{name}", lines=target_line(target), timeout_s=timeout_s
        )


def target_line(target: str) -> bytes:
    """Return the header line that names the target model: Triton wants it on load, unload and invoke."""
    return b"%b: %b\r\n" % (TARGET_HEADER, target.encode())


def _quoted(answer: Answer) -> str:
    text = answer.body[:200].decode(errors="replace").strip()
    return f" ({text!r})" if text else ""
