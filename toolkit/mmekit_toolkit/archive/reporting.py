"""From what a check found to its report."""

from __future__ import annotations

import os
from pathlib import Path

from mmekit.formats import FRAMEWORKS
from mmekit.needs import WORKER_BYTES, Subject, first_guess, sizes_by_suffix
from mmekit_toolkit.archive import report
from mmekit_toolkit.archive.environment import Environment, ImageEnvironment
from mmekit_toolkit.archive.findings import Finding, in_order, printable
from mmekit_toolkit.archive.imports import kind_of
from mmekit_toolkit.archive.inspection import Inspection
from mmekit_toolkit.archive.model import ModelFile
from mmekit_toolkit.archive.sizes import shown_bytes

#: Packages whose versions a report tells, if they are there.
_TOLD = ("mmekit", "xgboost", "xgboost-cpu", "scikit-learn", "torch", "numpy", "pandas", "joblib", "skops")


def build(
    source: str,
    form: str | None,
    digest: str | None,
    sizes: report.Sizes,
    inspection: Inspection,
    findings: list[Finding],
    folder: Path | None,
    environment: Environment,
) -> report.Report:
    """Return the report on a source; ``folder`` is where its model lies now, if it could be had."""
    if inspection.choice is not None and folder is not None:
        _estimate(sizes, inspection, folder)
    told = [_renamed(each, folder, source) for each in (*findings, *inspection.findings)]
    sample = inspection.sample
    return report.Report(
        source=printable(source),
        form=form,
        sha256=digest,
        sizes=sizes,
        loads=_loads(inspection),
        models=[_model(model, inspection, environment) for model in inspection.models],
        sample_request=None
        if sample is None
        else report.SampleRequest(sample.content_type, sample.accept, len(sample.body), sample.warm_up),
        signature=inspection.signature,
        compared_with=compared(environment),
        findings=in_order(told),
    )


def _renamed(finding: Finding, folder: Path | None, source: str) -> Finding:
    """Put the source's name in place of the temporary folder's, which nobody knows."""
    if folder is None:
        return finding
    text = finding.message.replace(os.path.abspath(folder), source)
    return Finding(finding.level, finding.name, text, finding.members)


def _estimate(sizes: report.Sizes, inspection: Inspection, folder: Path) -> None:
    """Fill in what the server takes a load to need before it has seen one (mmekit.needs)."""
    chosen = inspection.choice
    assert chosen is not None
    runtime = chosen.handler or chosen.runtime
    built_in = runtime if runtime in FRAMEWORKS else None
    subject = Subject("", built_in, chosen.own_code, sizes_by_suffix(str(folder)))
    need = first_guess(*subject.kind)
    worker = WORKER_BYTES if chosen.own_code else 0
    sizes.memory_bytes = int(need.memory(subject.data_bytes)) + worker
    sizes.memory_estimate = (
        f"{need.ratio:g} × {shown_bytes(subject.data_bytes)} of model files + "
        f"{shown_bytes(int(need.base_bytes) + worker)}"
    )


def _loads(inspection: Inspection) -> report.Loads | None:
    found, chosen = inspection.artifact, inspection.choice
    if found is None or chosen is None or inspection.runs is None:
        return None
    framework = FRAMEWORKS.get(chosen.handler or "") or FRAMEWORKS.get(chosen.runtime or "")
    return report.Loads(
        by=inspection.runs,
        handler=chosen.handler or (None if chosen.program else chosen.runtime),
        program=chosen.program.removeprefix(found.path + "/") if chosen.program else None,
        framework=framework[0] if framework else None,
        defines=inspection.code.defines,
        code=[printable(name) for name in inspection.code.modules],
        requirements=list(found.requirements),
        model_name=found.model_name,
        model_version=found.model_version,
    )


def _model(model: ModelFile, inspection: Inspection, environment: Environment) -> report.Model:
    own = inspection.artifact.top_level_modules if inspection.artifact else frozenset[str]()
    return report.Model(
        file=printable(model.name),
        size_bytes=model.size_bytes,
        is_loaded=model.runtime is not None and not inspection.own_code,
        form=model.form,
        model=model.kind or None,
        written_by=model.written_by,
        columns=model.columns,
        column_names=list(model.names) if model.names else None,
        imports=[report.Import(str(each), kind_of(each, own, environment).value) for each in model.imports],
    )


def compared(environment: Environment) -> report.Compared:
    """Return what versions were compared with."""
    packages = {name: version for name in _TOLD if (version := environment.version(name))}
    image = environment.image if isinstance(environment, ImageEnvironment) else None
    return report.Compared(image, environment.python, packages)
