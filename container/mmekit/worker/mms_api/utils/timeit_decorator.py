"""``mms.utils.timeit_decorator``."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

_log = logging.getLogger(__name__)


def timeit(func: Callable[..., Any]) -> Callable[..., Any]:
    """Log how long each call takes, in seconds, and how much of it the processor worked."""

    @functools.wraps(func)
    def timed(*args: Any, **kwargs: Any) -> Any:
        start, start_cpu = time.perf_counter(), time.process_time()
        result = func(*args, **kwargs)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
        _log.info("%s took %.4f s, %.4f s of CPU time.", func.__name__, seconds, cpu_seconds)
        return result

    return timed
