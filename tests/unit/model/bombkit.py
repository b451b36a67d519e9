"""Models and archives that are made to harm who reads them, each with a name."""

import io
import itertools
import tarfile
import zipfile

import numpy as np
import onnx
from modelkit import linear, model, value
from onnx import helper, numpy_helper
from seedkit import external
from wirekit import delimited

_HUGE = (1 << 20, 1 << 40, (1 << 62), (1 << 63) - 1, -1, -(1 << 63))


def bombs() -> dict[str, bytes]:
    """All of them."""
    found: dict[str, bytes | onnx.ModelProto] = {}
    for depth in (50, 90, 200, 5000):
        found[f"graphs in attributes, {depth} deep"] = nested_graphs(depth)
        found[f"types of sequences, {depth} deep"] = nested_types(depth)
    found |= {"function calls itself": calls(1, 1, cycle=True), "functions call each other": calls(7, 3, cycle=True)}
    for depth, width in ((13, 9), (30, 2), (64, 2), (200, 1), (2000, 1)):
        found[f"calls of functions, {depth} deep, {width} wide"] = calls(depth, width)
    for size in _HUGE:
        found[f"dimension {size}"] = dimension(size)
        found[f"weight of {size} x {size}"] = weight(size)
        for operator in ("Expand", "ConstantOfShape", "Tile", "Range", "OneHot", "Pad"):
            found[f"{operator} to {size}"] = grown(operator, size)
        found[f"external data at {size}"] = external(offset=str(size))
        found[f"external data of {size}"] = external(length=str(size))
    for location in (
        *(
            "../w.bin",
            "/etc/passwd",
            "a/../../w.bin",
            "..\\w.bin",
            "C:\\w.bin",
            "\\\\host\\w",
            "w\0.bin",
            "",
            ".",
            "..",
        ),
        *(
            "*/_ORT_MEM_ADDR_/*",
            "//w.bin",
            "./../w.bin",
            "w.bin/",
            "file:///etc/passwd",
            "~/w.bin",
            "w" * 5000,
            "m.onnx",
        ),
    ):
        found[f"external data in {location[:30]!r}"] = external(location)
    for text in ("-1", "1e9", "0x10", " 1", "9" * 4000, "9" * 5000, "", "NaN", "١"):
        found[f"external data at {text[:9]!r}"] = external(offset=text)
    for equation in ("", "->", "...", "ij,jk->ik" * 500, "a" * 10_000, "i" * 300 + "->i", "ij->ji->ij", "\xff", "i->k"):
        found[f"Einsum {equation[:12]!r}"] = model([helper.make_node("Einsum", ["x"], ["y"], equation=equation)])
    for index in (-1, 4, 1 << 62, -(1 << 63)):
        found[f"sparse index {index}"] = sparse_at(index)
    found["many nodes"] = chain(20_000)
    data = {name: each if isinstance(each, bytes) else each.SerializeToString() for name, each in found.items()}
    return data | archives()


def nested_graphs(depth: int) -> bytes:
    """A graph in an attribute of a node of a graph in an attribute..."""
    graph = delimited(2, b"g")
    for _ in range(depth):
        attribute = delimited(1, b"then_branch") + b"\xa0\x01\x05" + delimited(6, graph)
        graph = delimited(1, delimited(2, b"y") + delimited(4, b"If") + delimited(5, attribute)) + delimited(2, b"g")
    return b"\x08\x08" + delimited(7, graph) + delimited(8, delimited(1, b"") + b"\x10\x11")


def nested_types(depth: int) -> bytes:
    """An input that is a sequence of sequences of..."""
    kind = delimited(1, b"\x08\x01")
    for _ in range(depth):
        kind = delimited(4, delimited(1, kind))
    return linear(4).SerializeToString() + delimited(7, delimited(11, delimited(1, b"s") + delimited(2, kind)))


def calls(depth: int, width: int, *, cycle: bool = False) -> onnx.ModelProto:
    """Functions of which each calls the next one several times: width ** depth calls in all."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    functions = []
    for level in range(depth):
        last = level == depth - 1
        domain, callee = ("", "Relu") if last and not cycle else ("my", f"f{(level + 1) % depth}")
        names = ["a", *(f"t{i}" for i in range(1, width)), "b"]
        nodes = [helper.make_node(callee, [names[i]], [names[i + 1]], domain=domain) for i in range(width)]
        functions.append(helper.make_function("my", f"f{level}", ["a"], ["b"], nodes, imports))
    return model([helper.make_node("f0", ["x"], ["y"], domain="my")], opsets=[("", 17), ("my", 1)], functions=functions)


def dimension(size: int) -> onnx.ModelProto:
    """An input of this size."""
    nodes = [helper.make_node("Mul", ["x", "x"], ["h"]), helper.make_node("Flatten", ["h"], ["y"])]
    return model(nodes, inputs=[value("x", (size, size, 2))], outputs=[value("y", None)])


def weight(size: int) -> onnx.ModelProto:
    """A weight that says it has these dimensions."""
    result = linear(4)
    result.graph.initializer[0].dims[:] = [size, size]
    return result


def grown(operator: str, size: int) -> onnx.ModelProto:
    """An operator that makes much of nothing, from sizes that are constants."""
    sizes = numpy_helper.from_array(np.array([size, size], np.int64), "s")
    one = numpy_helper.from_array(np.array([0, 1], np.float32), "v")
    scalar = numpy_helper.from_array(np.array(size, np.int64), "n")
    zero, step = (numpy_helper.from_array(np.array(each, np.int64), name) for each, name in ((0, "z"), (1, "o")))
    pads = numpy_helper.from_array(np.array([0, size, 0, size], np.int64), "p")
    inputs = {
        "ConstantOfShape": ["s"],
        "Range": ["z", "n", "o"],
        "OneHot": ["s", "n", "v"],
        "Pad": ["x", "p"],
    }.get(operator, ["x", "s"])
    nodes = [
        helper.make_node(operator, inputs, ["h"]),
        helper.make_node("Shape", ["h"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["y"]),
    ]
    return model(nodes, outputs=[value("y", None)], initializers=[sizes, one, scalar, zero, step, pads])


def sparse_at(index: int) -> onnx.ModelProto:
    """A sparse weight with an index that may not be inside it."""
    result = model([helper.make_node("Add", ["x", "w"], ["y"])])
    numbers = numpy_helper.from_array(np.array([1.0], np.float32), "w")
    indices = numpy_helper.from_array(np.array([index], np.int64))
    result.graph.sparse_initializer.append(helper.make_sparse_tensor(numbers, indices, [4]))
    return result


def chain(length: int) -> onnx.ModelProto:
    """Nodes in a row."""
    names = ["x", *(f"h{i}" for i in range(length - 1)), "y"]
    return model([helper.make_node("Relu", [a], [b]) for a, b in itertools.pairwise(names)])


def archives() -> dict[str, bytes]:
    """Archives that unpack to much, or to elsewhere."""
    found = {}
    for method, name in ((zipfile.ZIP_DEFLATED, "deflated"), (zipfile.ZIP_BZIP2, "bzip2")):
        found[f"zip bomb, {name}"] = zipped({"m.onnx": bytes(64 << 20)}, method)
    for name in ("../m.onnx", "/m.onnx", "a/../../m.onnx", "..\\m.onnx"):
        found[f"zip with {name}"] = zipped({name: linear(4).SerializeToString()}, zipfile.ZIP_STORED)
        found[f"tar with {name}"] = tarred([(name, linear(4).SerializeToString(), tarfile.REGTYPE)])
    found["zip of many members"] = zipped({f"{i}.txt": b"" for i in range(20_000)}, zipfile.ZIP_STORED)
    whole = zipped({"m.onnx": linear(4).SerializeToString()}, zipfile.ZIP_DEFLATED)
    found["zip cut off"] = whole[:-30]
    found["zip whose directory says 4 GiB"] = whole.replace(b"PK\x01\x02", b"PK\x01\x02", 1)[:-10] + b"\xff" * 10
    found["zip in a zip"] = zipped({"m.onnx": whole}, zipfile.ZIP_STORED)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        found[f"tar with a member of type {kind!r}"] = tarred([("m.onnx", b"", kind)])
    found["tar bomb"] = tarred([("m.onnx", bytes(64 << 20), tarfile.REGTYPE)], "w:gz")
    return found


def zipped(members: dict[str, bytes], method: int) -> bytes:
    """A zip of these."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(members: list[tuple[str, bytes, bytes]], mode: str = "w") -> bytes:
    """A tar of names, contents and types."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content, kind in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(content), "/etc/passwd"
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()
