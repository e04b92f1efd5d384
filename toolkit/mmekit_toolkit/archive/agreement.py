"""Whether a model's sample request, its signature and its own file agree. Pure."""

from __future__ import annotations

from mmekit.archive.sample import BODY, Sample
from mmekit_toolkit.archive.findings import Finding, Level, about, shown
from mmekit_toolkit.archive.sample_rows import widths
from mmekit_toolkit.archive.signature import Signature

#: SageMaker takes bodies of up to this (AWS: InvokeEndpoint).
_MAX_BODY_BYTES = 25 * 1024 * 1024


def compare(
    sample: Sample | None, signature: Signature | None, derived: Signature | None, *, built_in: bool
) -> list[Finding]:
    """Return where sample, signature and what the model's file says do not agree.

    ``built_in``: a built-in handler reads requests; the model's own code may take other columns.
    """
    found = []
    level = Level.FAULT if built_in else Level.WARNING
    if signature and derived and signature.columns and signature.columns != derived.columns:
        text = f"the signature has {signature.columns} columns, the model itself {derived.columns}."
        found.append(about(level, "signature", text))
    if sample is None:
        return found
    if not sample.body:
        found.append(about(Level.FAULT, "sample-request", f"{BODY} is empty.", [BODY]))
    if len(sample.body) > _MAX_BODY_BYTES:
        text = f"{BODY} has {len(sample.body)} bytes; SageMaker takes requests of up to {_MAX_BODY_BYTES}."
        found.append(about(Level.FAULT, "sample-request", text, [BODY]))
    expected = next((s.columns for s in (derived if built_in else None, signature) if s and s.columns), None)
    wrong = sorted(widths(sample) - {expected}) if expected else []
    if wrong:
        text = (
            f"{BODY} ({sample.content_type}) has rows with {shown([str(each) for each in wrong])} columns; "
            f"the model takes {expected}."
        )
        found.append(about(level, "sample-request", text, [BODY]))
    return found
