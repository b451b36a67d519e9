"""What is read late, read early: a child that is forked afterwards needs no file."""

import ctypes
import importlib
import io
import linecache
import locale
import os
import time
import warnings
import zipfile

from onnx import TensorProto, helper

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.api.providers import load_tables
from onnx_operator.model.inspection.trying import RuntimeTrial
from onnx_operator.model.reading.folder import MemoryFolder
from onnx_operator.model.verdict import verify

_LATE = ("encodings.cp437", "encodings.idna", "encodings.latin_1", "encodings.utf_16", "_strptime")
"""Modules that are imported by their use alone."""


def rehearse(trial: RuntimeTrial) -> None:
    """Do once, in this process, what its children will do, and keep them from looking for lines of source."""
    for name in _LATE:
        importlib.import_module(name)
    # A zone by its rule: the C library would look for /etc/localtime again and again.
    os.environ["TZ"] = "UTC0"
    time.tzset()
    _hold_locale()
    warnings.simplefilter("ignore")
    # Tracebacks and warnings show source where they find it.
    linecache.updatecache = _no_lines
    load_tables()
    capabilities = load_capabilities()
    for name, content in _models().items():
        folder = MemoryFolder({name: content})
        verify(folder, name, capabilities=capabilities, trial=trial.bound_to(capabilities=capabilities))


def _hold_locale() -> None:
    """Read the locale of StringNormalizer, where the machine has it, and never give it back to the C library."""
    ctypes.CDLL(None).newlocale(1 << locale.LC_ALL, b"en_US.UTF-8", None)


def _no_lines(filename: str, module_globals: dict[str, object] | None = None) -> list[str]:
    return []


def _models() -> dict[str, bytes]:
    """A good one, a damaged one, one that is refused, and an archive."""
    # Large enough for a stand-in.
    weight = helper.make_tensor("w", TensorProto.FLOAT, (4, 2000), bytes(32000), raw=True)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", size)) for name, size in (("x", 4), ("y", 2000))
    ]

    def made(operator: str) -> bytes:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node(operator, ["h"], ["y"])]
        graph = helper.make_graph(nodes, "rehearsal", ends[:1], ends[1:], [weight])
        return bytes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
        )

    good = made("Relu")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("m.onnx", good)
    return {"m.onnx": good, "cut.onnx": good[:-9], "unknown.onnx": made("Rehearsed"), "m.zip": archive.getvalue()}
