"""A report for people: what it is, what would be loaded, what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmekit_toolkit.archive.findings import Level, count, printable, shown
from mmekit_toolkit.archive.imports import Kind
from mmekit_toolkit.archive.report import Model, Report
from mmekit_toolkit.archive.signature import Signature, Tensor
from mmekit_toolkit.archive.sizes import shown_bytes

_COLOURS = {Level.FAULT: "bold red", Level.WARNING: "yellow", Level.REMARK: "cyan"}
#: Digits of an archive's hash, as in names that `mmekit archive pack` gives.
_HASH_DIGITS = 12


def print_report(report: Report, console: Console) -> None:
    """Print a report; text alone where the console is no terminal."""
    console.print(Text(printable(report.source), style="bold"), soft_wrap=True)
    _print_rows([(printable(name), printable(value)) for name, value in _rows(report)], console)
    for finding in report.findings:
        text = Text.assemble((f"{finding.level.value}: ", _COLOURS[finding.level]), finding.message)
        console.print(text, soft_wrap=True)
    console.print(_verdict(report))


def _print_rows(rows: list[tuple[str, str]], console: Console) -> None:
    if not console.is_terminal:
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            console.print(Text(f"{name:<{width}}  {value}"), soft_wrap=True)
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    console.print(table)


def _verdict(report: Report) -> Text:
    numbers = Counter(finding.level for finding in report.findings)
    told = [count(numbers[level], level.value) for level in Level if numbers[level]]
    if numbers[Level.FAULT]:
        return Text(", ".join(told) + ".", style="bold red")
    return Text("No faults." if not told else f"No faults; {', '.join(told)}.", style="green")


def _rows(report: Report) -> Iterator[tuple[str, str]]:
    yield from _size_rows(report)
    if loads := report.loads:
        yield "loaded by", loads.by
        if loads.defines:
            yield "defines", ", ".join(loads.defines)
        if loads.code:
            yield "code", shown(loads.code)
        if loads.requirements:
            yield "requires", shown(loads.requirements)
        if loads.model_name:
            version = f" {loads.model_version}" if loads.model_version else ""
            yield "manifest", f"{loads.model_name}{version}"
    for model in report.models:
        yield model.file, _described(model)
    if report.signature:
        yield "signature", _signature(report.signature)
    if sample := report.sample_request:
        warm_up = f", {count(sample.warm_up, 'prediction')} before the load is answered" * bool(
            sample.warm_up
        )
        yield "sample", f"{shown_bytes(sample.size_bytes)} of {sample.content_type}{warm_up}"
    yield "compared", _compared(report)
    if loaded := report.loaded:
        yield (
            "loaded in",
            f"{loaded.load_ms:.0f} ms"
            + (
                f", cost {shown_bytes(loaded.memory_bytes)} of memory"
                if loaded.memory_bytes is not None
                else ""
            ),
        )
        if loaded.first_call_ms is not None and loaded.second_call_ms is not None:
            yield (
                "calls",
                f"first {loaded.first_call_ms:.1f} ms, second {loaded.second_call_ms:.1f} ms: "
                f"{loaded.answer_status} {loaded.answer_type or ''}".rstrip(),
            )


def _size_rows(report: Report) -> Iterator[tuple[str, str]]:
    sizes = report.sizes
    if report.form is None:
        return
    digest = f", sha256 {report.sha256[:_HASH_DIGITS]}…" if report.sha256 else ""
    packed = f"{shown_bytes(sizes.archive_bytes)}{digest}" if sizes.archive_bytes is not None else ""
    yield "archive" if packed else "folder", packed or f"{count(sizes.files, 'file')}"
    yield "on disk", f"{shown_bytes(sizes.unpacked_bytes)} in {count(sizes.files, 'file')}"
    if sizes.memory_bytes is not None:
        yield (
            "memory",
            f"about {shown_bytes(sizes.memory_bytes)}, the server's first guess ({sizes.memory_estimate})",
        )


def _described(model: Model) -> str:
    parts = [model.form or "not read"]
    if model.model:
        parts.append(model.model)
    parts += [f"written by {name} {version}" for name, version in model.written_by.items()]
    if model.columns:
        parts.append(count(model.columns, "column"))
    others = [each for each in model.imports if each.kind != Kind.EXPECTED.value]
    if model.imports:
        tops = sorted({each.name.partition(".")[0] for each in model.imports})
        parts.append(f"imports {shown(tops)}")
    if others:
        parts.append("among them " + shown([f"{each.name} ({each.kind})" for each in others]))
    return "; ".join(parts)


def _signature(signature: Signature) -> str:
    named = f" ({shown(signature.names)})" if signature.names else ""
    return f"{_tensors(signature.inputs)}{named} → {_tensors(signature.outputs)}"


def _tensors(tensors: list[Tensor]) -> str:
    return ", ".join(f"{each.data_name}{each.data_shape}" for each in tensors) or "not said"


def _compared(report: Report) -> str:
    compared = report.compared_with
    packages = ", ".join(f"{name} {version}" for name, version in compared.packages.items())
    where = (
        f"with the image {compared.image}"
        if compared.image
        else "with this environment, as no --image is given"
    )
    return f"{where}: Python {compared.python}{', ' if packages else ''}{packages}"
