"""``python -m benchmarks.memory [NAME…]``: estimated against measured memory of the scoring process.

The server runs as pods run it, on one core: it loads, warms up and answers three requests. The peaks are the kernel's
(``VmHWM``), so pages of mapped files count, as they may in a pod. The server has the kernel forget its peak once it has
loaded, to measure what a run takes: what is read afterwards is the peak of serving, and the one of loading is watched.
"""

import gc
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from benchmarks import machine
from benchmarks.memory_cases import CASES, MemoryCase
from onnx_operator.model.figures.memory import estimate_memory

REQUESTS = 3
_PAUSE_SECONDS = 0.002
_MIB = 1 << 20


@dataclass(frozen=True)
class MemoryRow:
    """One model's peaks, in bytes: while it is loaded, and afterwards."""

    name: str
    file_bytes: int
    estimated: int
    measured: int
    serving_estimated: int
    serving_measured: int

    @property
    def ratio(self) -> float:
        """Estimated over measured, of the whole."""
        return self.estimated / self.measured

    @property
    def serving_ratio(self) -> float:
        """The same, once the model is loaded."""
        return self.serving_estimated / self.serving_measured


def measure(names: Sequence[str] = ()) -> list[MemoryRow]:
    """Measure the cases of these names, or all."""
    rows = []
    for case in CASES:
        if not names or case.name in names:
            click.echo(f"{case.name} …", err=True)
            with tempfile.TemporaryDirectory() as folder:
                rows.append(_measure_case(case, Path(folder)))
            gc.collect()
    return rows


_METHOD = """\
The peak of the resident memory of `onnx-server serve` (start, load, warm-up, three requests as JSON) against the
estimate that an inspection makes of the structure alone, which a pod's limit follows; and the same once the model is
loaded, which its request follows. `light_*` are the Model Zoo's networks as the onnx package brings them, `filled_*`
the same with weights in the file. The aim is a ratio of .90 to 1.25.
"""


def report(rows: Sequence[MemoryRow]) -> str:
    """A table as Markdown, with the furthest over and under."""
    lines = [
        _METHOD,
        "",
        "| model | file MiB | peak: estimated | measured MiB | ratio | serving: estimated | measured MiB | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        peak = f"{row.estimated / _MIB:.0f} | {row.measured / _MIB:.0f} | {row.ratio:.2f}"
        serving = f"{row.serving_estimated / _MIB:.0f} | {row.serving_measured / _MIB:.0f} | {row.serving_ratio:.2f}"
        lines.append(f"| {row.name} | {row.file_bytes / _MIB:.1f} | {peak} | {serving} |")
    if rows:
        over, under = max(rows, key=lambda row: row.ratio), min(rows, key=lambda row: row.ratio)
        lines.append(f"\nPeak, most over: {over.name}, {over.ratio:.2f}; most under: {under.name}, {under.ratio:.2f}.")
        over, under = max(rows, key=lambda row: row.serving_ratio), min(rows, key=lambda row: row.serving_ratio)
        words = f"most over: {over.name}, {over.serving_ratio:.2f}; most under: {under.name}, {under.serving_ratio:.2f}"
        lines.append(f"Serving, {words}.")
    return "\n".join(lines)


def _measure_case(case: MemoryCase, folder: Path) -> MemoryRow:
    path = case.save(folder)
    model = onnx.load(path, load_external_data=False)
    estimated = estimate_memory(model, {}, sizes=case.sizes)
    request = _request(model, case.sizes)
    file_bytes = sum(each.stat().st_size for each in folder.iterdir())
    peak, serving = _peak(path, request)
    return MemoryRow(
        case.name, file_bytes, estimated.resident_bytes, max(peak, serving), estimated.serving_bytes, serving
    )


def _peak(path: Path, request: bytes) -> tuple[int, int]:
    """Bytes at the peak of a server: until it was ready, and of its warm-up and requests."""
    command = [sys.executable, "-m", "onnx_operator.server", "serve", "--model", str(path), "--name", "m"]
    core = machine.cores()[0]
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", "0"],
        env={name: value for name, value in os.environ.items() if not name.startswith("ONNX_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: machine.pin(core),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            heard = json.loads(process.stderr.readline())
            peak = 0
            while not select.select([process.stdout], [], [], _PAUSE_SECONDS)[0]:
                peak = max(peak, machine.memory("VmHWM", process.pid))
            if not process.stdout.readline():
                raise RuntimeError(f"the server ended: {process.stderr.read()}")
            connection = HTTPConnection("127.0.0.1", heard["port"], timeout=120)
            for _ in range(REQUESTS):
                connection.request("POST", "/v2/models/m/infer", request, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"the server answered {answer.status}: {text[:500]!r}")
            return peak, machine.memory("VmHWM", process.pid)
        finally:
            process.kill()


_DATATYPES = {
    onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.FLOAT16: "FP16",
    onnx.TensorProto.INT64: "INT64",
}


def _request(model: onnx.ModelProto, sizes: Mapping[str, int]) -> bytes:
    """A request as Python clients write it: numbers from a seed, ``array.tolist()``."""
    random = np.random.default_rng(7)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs: list[dict[str, Any]] = []
    for value in model.graph.input:
        if value.name in weights:
            continue
        kind = value.type.tensor_type
        shape = [d.dim_value or sizes.get(d.dim_param, 1) for d in kind.shape.dim]
        datatype = _DATATYPES[kind.elem_type]
        numbers = np.zeros(shape, np.int64) if datatype == "INT64" else random.random(shape, np.float32)
        inputs.append({"name": value.name, "datatype": datatype, "shape": shape, "data": numbers.ravel().tolist()})
    return json.dumps({"inputs": inputs}).encode()


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", type=click.Choice([case.name for case in CASES]))
def main(names: tuple[str, ...]) -> None:
    """Measure and print; without a NAME all."""
    click.echo(report(measure(names)))


if __name__ == "__main__":
    main()
