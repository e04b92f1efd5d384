"""The largest request and answer of a real-time endpoint."""

from __future__ import annotations

from mmekit_toolkit.contract import probe
from mmekit_toolkit.contract.bench import Bench
from mmekit_toolkit.contract.clause import Section, clause
from mmekit_toolkit.contract.clauses import sources
from mmekit_toolkit.contract.sample import ProbeSample
from mmekit_toolkit.contract.wire import Unanswered

#: Bytes of a body, in both directions (botocore: BodyBlob of sagemaker-runtime).
LIMIT_BYTES = 6_291_456


@clause(Section.LIMITS, sources.INVOKE_ENDPOINT)
def payload_6_mib(bench: Bench) -> str | None:
    """A request of 6 MiB is accepted."""
    model = bench.loaded()
    own = isinstance(bench.sample, ProbeSample)
    body = probe.facts(LIMIT_BYTES) if own else b"\0" * LIMIT_BYTES
    try:
        answer = bench.server.invoke(model.name, body, bench.sample.headers)
    except Unanswered as error:
        raise error.broken(f"an answer to a request of {LIMIT_BYTES} bytes") from error
    answer.expect(answer.status != 413, f"that {LIMIT_BYTES} bytes are not too many")
    if not own:
        return f"answered with {answer.status}: the bytes are none that the model knows"
    facts = answer.json
    whole = answer.status == 200 and isinstance(facts, dict) and facts.get("body_bytes") == LIMIT_BYTES
    answer.expect(whole, f"200, and that the model sees {LIMIT_BYTES} bytes (`body_bytes`)")
    return None


@clause(Section.LIMITS, sources.INVOKE_ENDPOINT)
def answer_6_mib(bench: Bench) -> None:
    """An answer of 6 MiB comes back whole."""
    bench.needs_probe()
    model = bench.loaded()
    body = probe.answer(LIMIT_BYTES)
    try:
        answer = bench.server.invoke(model.name, body, {"Content-Type": "application/json"})
    except Unanswered as error:
        raise error.broken(f"an answer of {LIMIT_BYTES} bytes") from error
    right = answer.status == 200 and answer.body == b"a" * LIMIT_BYTES
    answer.expect(right, f"200 with {LIMIT_BYTES} times the letter a; {len(answer.body)} bytes came")
