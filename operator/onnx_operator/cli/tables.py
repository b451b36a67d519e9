"""Reports for people: tables that fit a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import InspectionResult, ModelReport, ProviderCoverage, RowsProof, TensorSpec
from onnx_operator.api.schemes import credential_names
from onnx_operator.cli.warming import Warmth
from onnx_operator.common.text import visible
from onnx_operator.model.comparison import Change

if TYPE_CHECKING:
    from onnx_operator.cli.history import History, Row

SHORT_DIGEST = 12
"""Digits of a digest in a list of several."""
_COLORS = {"serving": "green", "wanted": "bold", "failed": "red", "unreadable": "yellow", "unsealed": "yellow"}


def refusal(uri: str, result: InspectionResult, unread: bool) -> RenderableType:
    """Why a model is not accepted."""
    assert result.refusal is not None
    verdict = "could not be read" if unread else "refused"
    head = Text.assemble((visible(uri), "bold"), ": ", (verdict, "bold red"))
    lines = [
        head,
        Text.assemble((str(result.refusal.reason), "red"), f": {visible(result.refusal.message, lines=True)}"),
    ]
    variables = credential_names(uri)
    if result.refusal.reason is Reason.SOURCE_UNAUTHORIZED and variables:
        lines.append(Text(f"Here credentials are environment variables: {', '.join(variables)}.", "dim"))
    return Group(*lines)


def report(uri: str, result: InspectionResult) -> RenderableType:
    """What an accepted model is."""
    found = result.report
    assert found is not None
    parts: list[RenderableType] = [
        Text.assemble((visible(uri), "bold"), ": ", ("valid", "bold green")),
        _facts(found, result.interface),
        _tensors(found),
        _coverage(found.coverage),
        _operators(found.operators),
    ]
    if found.metadata:
        parts.append(_pairs("metadata", found.metadata.items()))
    parts += [Text.assemble(("note: ", "yellow"), visible(note)) for note in found.notes]
    if found.truncated:
        parts.append(Text("Not all tensors, texts or metadata are shown: a status holds only so much.", "yellow"))
    return Group(*(part for part in parts if part is not None))


def warm_up(found: Warmth) -> RenderableType:
    """What the first runs of a model showed."""
    head = {
        "Warmed": Text.assemble("warm-up: ", ("warm", "bold green"), f", {visible(found.message)}"),
        "Unwarmed": Text.assemble("warm-up: ", ("serves without", "bold yellow"), f": {visible(found.message)}"),
        "Failed": Text.assemble("warm-up: ", ("cannot start", "bold red"), f": {visible(found.message)}"),
    }[found.outcome]
    rows: dict[str, str] = {}
    if found.inputs is not None:
        rows["spec.warmUp"] = found.inputs.to_text()
    if found.seconds:
        timed = (
            f"{count} {'row' if count == 1 else 'rows'} {taken * 1e3:.3g} ms" for count, taken in found.seconds.items()
        )
        rows["a run takes"] = ", ".join(timed)
    if found.batching:
        rows["batching"] = f"requests run alone: {found.batching}"
    return Group(head, *([_pairs("", rows.items())] if rows else []))


def changes(found: list[Change], rows: Iterable[tuple[str, str, str]]) -> RenderableType:
    """The differences between two models."""
    breaking = [change for change in found if change.breaking]
    head = (
        Text("Callers would break.", "bold red")
        if breaking
        else Text("Callers go on as before." if not found else "Callers go on as before, with changes.", "bold green")
    )
    lines = [
        Text.assemble(("breaks  ", "red") if change.breaking else ("changes ", "yellow"), visible(change.text))
        for change in found
    ]
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("", "old", "new"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(visible, row))
    return Group(head, *lines, *([table] if table.row_count else []))


def history(found: History) -> RenderableType:
    """A model's revisions, the newest first."""
    head = Text.assemble((visible(found.name), "bold"), f" in namespace {visible(found.namespace)}")
    if found.ready:
        words = visible(": ".join(filter(None, (found.reason, found.message))))
        head.append(f": Ready is {visible(found.ready)} ({words})")
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("no.", "revision", "state", "ready", "share", "made", "version", "digest", "interface", "model"):
        table.add_column(name, overflow="fold")
    for row in found.revisions:
        states = Text(", ").join(Text(state, _COLORS.get(state, "")) for state in row.states)
        ready = "not known" if row.pods is None else f"{row.ready_pods} of {row.pods}" if row.pods else "no pods"
        share = f"{row.share:.0%}" if row.share is not None else "not known"
        facts_ = (row.created, row.version, _short_digest(row), row.interface, row.uri)
        table.add_row(str(row.number), visible(row.name), states, ready, share, *map(visible, facts_))
    causes = [
        Text.assemble(
            (f"revision {row.number} failed", "red"),
            visible(f": {': '.join(filter(None, (row.failure.reason, row.failure.message)))}"),
        )
        for row in found.revisions
        if row.failure
    ]
    notes = [Text.assemble(("note: ", "yellow"), visible(note)) for note in found.notes]
    return Group(head, *([table] if table.row_count else []), *causes, *notes)


def _short_digest(row: Row) -> str:
    algorithm, colon, digits = row.digest.partition(":")
    return f"{algorithm}{colon}{digits[:SHORT_DIGEST]}"


def facts(found: ModelReport) -> dict[str, str]:
    """Plain figures of a model, by name."""
    opsets = ", ".join(f"{domain} {version}" for domain, version in sorted(found.opsets.items()))
    size = size_text(found.size_bytes) + (f" in {found.files} files" if found.files > 1 else "")
    return {
        "digest": found.digest or "not known: nobody vouches for one, and the file was not read whole",
        "pinned by": f"{found.source.kind} {found.source.value}",
        "signed by": found.signer,
        "size": size,
        "producer": found.producer or "not said",
        "IR version": str(found.ir_version),
        "opsets": opsets,
        "parameters": count_text(found.parameters),
        "weights": size_text(found.memory.weights_bytes),
        "activations": f"{size_text(found.memory.activations_bytes)} at the peak, for one row",
        "memory": f"about {size_text(found.memory.resident_bytes)} to serve",
        "operations": f"{count_text(found.flops, 'FLOP')} for one row",
        "batching": _batching(found.batching),
    }


def _batching(found: RowsProof | None) -> str:
    if found is None:
        return ""
    if found.proof == "Unproven":
        return f"requests run alone: {' '.join(text for text in (found.node, found.reason) if text)}"
    strength = "to the bit" if found.proof == "Exact" else "but for rounding"
    return f"requests may share a run: proven that rows do not meet, {strength}"


def _facts(found: ModelReport, interface: str) -> RenderableType:
    return _pairs("", [*((name, text) for name, text in facts(found).items() if text), ("interface", interface)])


def _pairs(title: str, pairs: Iterable[tuple[str, str]]) -> RenderableType:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in pairs:
        table.add_row(visible(name), visible(text))
    return Panel(table, title=title, title_align="left", expand=False) if title else table


def _tensors(found: ModelReport) -> RenderableType:
    table = Table("", "name", "type", "shape", box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.columns[1].overflow = "fold"
    for kind, specs in (("input", found.inputs), ("output", found.outputs)):
        for spec in specs:
            table.add_row(kind, visible(spec.name), visible(spec.datatype), visible(_shape(spec)))
    return table


def _shape(spec: TensorSpec) -> str:
    return f"[{', '.join(map(str, spec.shape))}]"


def _coverage(found: list[ProviderCoverage]) -> RenderableType:
    table = Table("runs on", "nodes", "falls back to the CPU", box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.columns[2].overflow = "fold"
    for each in found:
        share = f"{each.fallback_flops_share:.0%} of FLOPs: " if each.fallback_operators else ""
        table.add_row(
            visible(each.provider),
            f"{each.covered_nodes} of {each.total_nodes}",
            visible(share + ", ".join(each.fallback_operators)) or "nothing",
        )
    return table


def _operators(found: dict[str, int]) -> RenderableType:
    listed = ", ".join(f"{name} ×{count}" for name, count in found.items())
    return Text.assemble(("operators  ", "dim"), visible(listed))


def size_text(count: int) -> str:
    """Bytes in the largest unit that leaves a digit before the point."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def count_text(count: int, what: str = "") -> str:
    """A number in thousands, millions, …"""
    value, unit = float(count), ""
    for unit in ("", "k", "M", "G", "T", "P"):
        if value < 1000 or unit == "P":
            break
        value /= 1000
    return f"{value:.{1 if unit else 0}f} {unit}{what}".rstrip()
