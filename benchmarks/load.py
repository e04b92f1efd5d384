"""Load on a server: ``wrk`` for closed loops, a paced probe for the worst answers.

wrk keeps every connection busy, so its latencies are those of a saturated server. The probe sends
at fixed times and counts from the time a request was due, so a pause cannot hide behind the
requests that were not sent during it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

PROBE = Path(__file__).parent / "programs" / "probe.py"


class LoadFailed(Exception):
    """Raised when wrk is missing or a run had errors: its figures would be worth nothing."""


@dataclass(frozen=True)
class Target:
    """One request to send; ``weight`` is its share where there are several."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    weight: float = 1.0


@dataclass(frozen=True)
class LoadResult:
    """One run of wrk: requests answered 2xx, and latencies in microseconds."""

    requests: int
    seconds: float
    p50_us: float
    p90_us: float
    p99_us: float
    max_us: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True)
class ProbeResult:
    """``(due, latency)`` of each request, and the answers that were not 2xx.

    ``due`` is on the clock of ``time.monotonic``, latencies are in milliseconds.
    """

    answers: list[tuple[float, float]]
    errors: list[str]

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(latency for _, latency in self.answers)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    def during(self, spans: Sequence[tuple[float, float]]) -> ProbeResult:
        """Return the answers to requests that were due in one of the spans of time."""
        inside = [answer for answer in self.answers if any(a <= answer[0] <= b for a, b in spans)]
        if not inside:
            raise LoadFailed("the probe had no answer in the time that matters")
        return ProbeResult(inside, self.errors)


def zipf_weights(number: int, exponent: float = 1.0) -> list[float]:
    """Return weights of ``number`` models whose share falls with their rank."""
    return [1 / (rank + 1) ** exponent for rank in range(number)]


# --- wrk -------------------------------------------------------------------------------------------


def require_wrk() -> str:
    """Return wrk's path; raise ``LoadFailed`` that says how to get it."""
    found = shutil.which("wrk")
    if found is None:
        raise LoadFailed("wrk is not installed; on Debian and Ubuntu: apt-get install wrk")
    return found


def wrk(url: str, targets: Sequence[Target], connections: int, seconds: int) -> LoadResult:
    """Run wrk with ``connections`` connections for ``seconds``; raise ``LoadFailed`` on any error."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_script(targets))
        script.flush()
        command = [require_wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s"]
        done = subprocess.run(
            [*command, "-s", script.name, url], capture_output=True, text=True, timeout=seconds + 120
        )
    if done.returncode != 0 or "RESULT " not in done.stdout:
        raise LoadFailed(f"wrk ended with {done.returncode}: {done.stderr or done.stdout}")
    result = json.loads(done.stdout.rpartition("RESULT ")[2])
    errors = {name: count for name, count in result["errors"].items() if count}
    if errors or not result["requests"]:
        raise LoadFailed(f"not a valid run: {result['requests']} answers, errors {errors or 'none'}")
    times = {name: result[name] for name in ("p50_us", "p90_us", "p99_us", "max_us")}
    return LoadResult(result["requests"], result["duration_us"] / 1e6, **times)


def _script(targets: Sequence[Target]) -> str:
    rows = []
    total = 0.0
    for target in targets:
        total += target.weight
        headers = ", ".join(f"[{_lua(name)}] = {_lua(value)}" for name, value in target.headers.items())
        parts = [_lua(target.method), _lua(target.path), f"{{{headers}}}", _lua(target.body)]
        rows.append(f"  {{{total!r}, {', '.join(parts)}}},")
    return "local targets = {\n" + "\n".join(rows) + "\n}\n" + _SCRIPT


#: Requests are made once, in ``init``; a request is then a random number and a binary search.
_SCRIPT = """\
local requests, bounds, total = {}, {}, 0

function init(args)
  math.randomseed(7)
  for index, target in ipairs(targets) do
    bounds[index] = target[1]
    requests[index] = wrk.format(target[2], target[3], target[4], target[5])
  end
  total = bounds[#bounds]
end

local function pick()
  local value, low, high = math.random() * total, 1, #bounds
  while low < high do
    local middle = math.floor((low + high) / 2)
    if bounds[middle] < value then low = middle + 1 else high = middle end
  end
  return low
end

function request()
  if #requests == 1 then return requests[1] end
  return requests[pick()]
end

function done(summary, latency, all)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "duration_us": %d, "p50_us": %d, "p90_us": %d, "p99_us": %d, "max_us": %d, '
      .. '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(90),
    latency:percentile(99), latency.max, errors.connect, errors.read, errors.write,
    errors.status, errors.timeout))
end
"""


def _lua(value: str | bytes) -> str:
    data = value.encode() if isinstance(value, str) else value
    return '"' + "".join(f"\\{byte:03d}" for byte in data) + '"'


# --- the probe -------------------------------------------------------------------------------------


class Probe:
    """A process that sends requests at fixed times until it is stopped."""

    def __init__(self, url: str, targets: Sequence[Target], interval_s: float) -> None:
        address = urlsplit(url)
        settings = {
            "host": address.hostname,
            "port": address.port,
            "interval_s": interval_s,
            "requests": [_bytes_of(target).hex() for target in targets],
        }
        self._process = subprocess.Popen(
            [sys.executable, str(PROBE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(settings) + "\n")
        self._process.stdin.flush()

    def stop(self) -> ProbeResult:
        """Wait for the answer that is due, end the process and return what it saw."""
        output, _ = self._process.communicate("stop\n", timeout=90)
        result = json.loads(output)
        if not result["answers"]:
            raise LoadFailed(f"the probe had no answer: {result['errors'][:3]}")
        return ProbeResult([(due, latency) for due, latency in result["answers"]], result["errors"])

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def probe(url: str, targets: Sequence[Target], interval_s: float, seconds: float) -> ProbeResult:
    """Probe for ``seconds``."""
    with Probe(url, targets, interval_s) as running:
        time.sleep(seconds)
        return running.stop()


def _bytes_of(target: Target) -> bytes:
    headers = {"Host": "benchmark", **target.headers}
    if target.method == "POST":
        headers["Content-Length"] = str(len(target.body))
    head = [f"{target.method} {target.path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + target.body
