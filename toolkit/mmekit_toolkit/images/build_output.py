"""What docker's output says about a build that failed: which step, and what helps."""

from __future__ import annotations

import re

#: BuildKit ends with an excerpt under this heading: `` > [build 3/5] RUN pip install …:``
_BUILDKIT_STEP = re.compile(r"^ > \[(?P<where>[^\]]+)\] (?P<what>.+?):?$", re.MULTILINE)
#: The legacy builder: ``Step 3/5 : RUN pip install …``
_LEGACY_STEP = re.compile(r"^Step (?P<where>\d+/\d+) : (?P<what>.+)$", re.MULTILINE)

#: What is found in the output → what to do.
_HINTS = {
    r"pull access denied|failed to resolve source metadata|manifest unknown|repository does not exist": (
        "The image of FROM is neither on this engine nor in a registry that it may read: build it first "
        "(mmekit:cpu: `docker build -f Dockerfile.cpu -t mmekit:cpu .` in mmekit's repository), or sign in. "
        "A builder of buildx's own does not see the engine's images: `docker buildx use default`."
    ),
    r"exec format error|exec user process caused": (
        "The engine cannot run programs of this platform: `docker run --privileged --rm tonistiigi/binfmt "
        "--install all` adds emulation; Docker Desktop has it."
    ),
    r"no space left on device": "The engine's disk is full: `docker system df`, `docker builder prune`.",
}


def explain(code: int, output: str) -> str:
    """Return what a build's exit code means after this output; the end of it is enough."""
    step = failed_step(output)
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    where = f" at step {step}." if step else "."
    last = f" Its last line: {lines[-1]}" if lines else " What it said is above."
    hints = [hint for pattern, hint in _HINTS.items() if re.search(pattern, output)]
    return "\n".join([f"docker build ended with code {code}{where}{last}", *hints])


def failed_step(output: str) -> str | None:
    """Return the step that was being done: ``3/5: RUN pip install …``; None if there was none."""
    found = [*_BUILDKIT_STEP.finditer(output)] or [*_LEGACY_STEP.finditer(output)]
    return f"{found[-1]['where']}: {found[-1]['what']}" if found else None
