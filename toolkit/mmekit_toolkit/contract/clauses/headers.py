"""Headers of an invocation: which reach the model, which come back, which must change nothing."""

from __future__ import annotations

import string

from mmekit_toolkit.contract import probe
from mmekit_toolkit.contract.bench import Bench, Model
from mmekit_toolkit.contract.clause import Section, clause
from mmekit_toolkit.contract.clauses import sources
from mmekit_toolkit.contract.clauses.loading import TARGET_MODEL
from mmekit_toolkit.contract.sample import ProbeSample
from mmekit_toolkit.contract.wire import Answer

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"

#: All characters that are visible in ASCII, as often as they fit.
_ATTRIBUTES = ((string.ascii_letters + string.digits + string.punctuation) * 11)[:1024]
#: Up to what an attribute may have, again and again: Multi Model Server fails at some lengths now and then.
_LENGTHS = (1, 300, 500, 1024) * 5

#: Content-Type and Accept as callers write them; with parameters they are the same text at the model.
_TYPES = [
    ("text/csv", "application/json"),
    ("application/x-probe", "text/csv"),
    ('application/x-probe; charset=utf-8; note="a b"', "application/x-answer;q=0.5, */*;q=0.1"),
]

#: What else the platform may send, and headers that nobody has heard of.
_UNKNOWN = {
    "X-Amzn-SageMaker-Inference-Id": "0123456789abcdef",
    "X-Amzn-SageMaker-Session-Id": "NEW_SESSION",
    "X-Amzn-SageMaker-Target-Variant": "blue",
    "X-Amzn-SageMaker-Target-Container-Hostname": "second",
    "X-Amzn-SageMaker-Inference-Component": "component",
    "X-Amzn-SageMaker-Enable-Explanations": "`false`",
    "X-Amzn-Trace-Id": "Root=1-67891233-abcdef012345678912345678",
    "X-Forwarded-For": "10.32.0.2",
    "X-Nobody-Knows": "anything",
}


@clause(Section.INVOKE, sources.INVOKE_ENDPOINT)
def content_types(bench: Bench) -> str | None:
    """Content-Type and Accept reach the model as they were sent, and its Content-Type comes back."""
    model = bench.loaded()
    if not isinstance(bench.sample, ProbeSample):
        return _answered_as_configured(bench, model)
    for content_type, accept in _TYPES:
        headers = {"Content-Type": content_type, "Accept": accept}
        answer = bench.server.invoke(model.name, probe.facts(), headers)
        _expect_at_model(answer, "content-type", content_type)
        _expect_at_model(answer, "accept", accept)
        echo = bench.server.invoke(model.name, b"1,2,3", headers)
        echo.expect(
            echo.headers.get("content-type") == content_type,
            f"the header Content-Type: {content_type}, which the model has set",
        )
    return None


def _answered_as_configured(bench: Bench, model: Model) -> str:
    answer = bench.invoke(model)
    wanted = bench.sample.headers.get("Accept")
    if wanted is None:
        return "the model's answer is 2xx; give --accept for more"
    came = answer.headers.get("content-type", "").partition(";")[0]
    answer.expect(came == wanted, f"the header Content-Type: {wanted}, which --accept names")
    return "as --content-type and --accept say"


@clause(Section.INVOKE, sources.INVOKE_ENDPOINT)
def custom_attributes(bench: Bench) -> str | None:
    """1024 characters of custom attributes reach the model, and what it sets comes back."""
    model = bench.loaded()
    own = not isinstance(bench.sample, ProbeSample)
    for length in _LENGTHS:
        sent = _ATTRIBUTES[:length]
        answer = bench.invoke(model, {CUSTOM_ATTRIBUTES: sent})
        answer.expect(answer.ok, f"2xx with {length} characters of custom attributes")
        if not own:
            _expect_at_model(answer, CUSTOM_ATTRIBUTES.lower(), sent)
            back = answer.headers.get(CUSTOM_ATTRIBUTES.lower())
            answer.expect(back == sent, f"the same {length} characters, which the model sets in its answer")
    return "answered with 2xx; only the kit's own model can tell whether they reach it" if own else None


def _expect_at_model(answer: Answer, name: str, value: str) -> None:
    facts = answer.json
    headers = facts.get("headers") if isinstance(facts, dict) else None
    answer.expect(isinstance(headers, dict), "the facts of the kit's model")
    assert isinstance(headers, dict)
    answer.expect(headers.get(name) == value, f"that the model sees {name}: {value}")


@clause(Section.INVOKE, sources.APIS)
def target_header_ignored(bench: Bench) -> str | None:
    """The header X-Amzn-SageMaker-Target-Model never chooses the model: the path does."""
    first = bench.loaded(headers={TARGET_MODEL: "first.tar.gz"})
    second = bench.loaded(headers={TARGET_MODEL: "second.tar.gz"})
    gone = bench.model()
    for target in (second.name, "second.tar.gz"):
        answer = bench.invoke(first, {TARGET_MODEL: target})
        fault = bench.sample.fault(answer, first.identity)
        answer.expect(not fault, f"{fault}, whatever {TARGET_MODEL} says")
        answer = bench.invoke(gone, {TARGET_MODEL: target})
        answer.expect(not answer.ok, f"404: that model is not loaded, whatever {TARGET_MODEL} says")
    if isinstance(bench.sample, ProbeSample):
        return None
    return "with a model that is not loaded; two copies of one model cannot be told apart"


@clause(Section.INVOKE, sources.INFERENCE_CODE)
def unknown_headers_ignored(bench: Bench) -> None:
    """Headers of the platform and unknown ones change nothing."""
    model = bench.loaded()
    answer = bench.invoke(model, _UNKNOWN)
    fault = bench.sample.fault(answer, model.identity)
    answer.expect(not fault, f"{fault}, as without these headers")
