"""Small models of our own, built as those of strangers are: one for each special kind that is found among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
value = helper.make_tensor_value_info
node = helper.make_node
MICROSOFT, ML = "com.microsoft", "ai.onnx.ml"
_random = np.random.default_rng(11)


def _floats(*shape: int) -> np.ndarray:
    return _random.standard_normal(shape).astype(np.float32)


def _graph(nodes: Sequence[NodeProto], inputs: Any, outputs: Any, weights: dict[str, np.ndarray] | None = None) -> Any:
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    return helper.make_graph(nodes, "g", inputs, outputs, tensors)


def _model(graph: GraphProto, opset: int = 17, ir: int = 8, **domains: int) -> ModelProto:
    names = {"ml": ML, "microsoft": MICROSOFT, "local": "local"}
    opsets = [helper.make_opsetid("", opset)] + [helper.make_opsetid(names[k], v) for k, v in domains.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def classifier_of_2018() -> ModelProto:
    """IR 3, probabilities as a sequence of maps, a fixed batch."""
    weights = {"coefficients": [0.5, -1.0, -0.5, 1.0, 0.1, 0.2], "intercepts": [0.0, 0.1, -0.1]}
    nodes = [
        node("LinearClassifier", ["x"], ["label", "raw"], domain=ML, classlabels_ints=[0, 1, 2], **weights),
        node("Normalizer", ["raw"], ["even"], domain=ML, norm="L1"),
        node("ZipMap", ["even"], ["maps"], domain=ML, classlabels_int64s=[0, 1, 2]),
    ]
    maps = helper.make_value_info(
        "maps",
        helper.make_sequence_type_proto(helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, []))),
    )
    return _model(_graph(nodes, [value("x", FLOAT, [3, 2])], [value("label", INT64, [3]), maps]), 9, 3, ml=1)


def convolution_of_2018() -> ModelProto:
    """Opset 7, IR 3, weights that are inputs too."""
    inputs = [value("x", FLOAT, [1, 2, 5, 5]), value("w", FLOAT, [3, 2, 3, 3])]
    return _model(
        _graph(
            [node("Conv", ["x", "w"], ["y"])], inputs, [value("y", FLOAT, [1, 3, 3, 3])], {"w": _floats(3, 2, 3, 3)}
        ),
        7,
        3,
    )


def weight_that_is_no_input_of_2018() -> ModelProto:
    """IR 3 with an initializer that is no graph input."""
    graph = _graph(
        [node("Mul", ["x", "w"], ["y"])], [value("x", FLOAT, [3, 2])], [value("y", FLOAT, [3, 2])], {"w": _floats(3, 2)}
    )
    return _model(graph, 7, 3)


def loop() -> ModelProto:
    """A Loop that sums, and a Scan beside it."""
    body = _graph(
        [node("Identity", ["c"], ["c2"]), node("Add", ["s", "x"], ["s2"])],
        [value("i", INT64, []), value("c", TensorProto.BOOL, []), value("s", FLOAT, [4])],
        [value("c2", TensorProto.BOOL, []), value("s2", FLOAT, [4])],
    )
    scan = _graph(
        [node("Add", ["a", "e"], ["a2"]), node("Identity", ["a2"], ["o"])],
        [value("a", FLOAT, []), value("e", FLOAT, [])],
        [value("a2", FLOAT, []), value("o", FLOAT, [])],
    )
    nodes = [
        node("Loop", ["three", "", "x"], ["y"], body=body),
        node("Scan", ["zero", "y"], ["last", "z"], body=scan, num_scan_inputs=1),
    ]
    weights = {"three": np.array(3, np.int64), "zero": np.array(0, np.float32)}
    outputs = [value("y", FLOAT, [4]), value("z", FLOAT, [4])]
    return _model(_graph(nodes, [value("x", FLOAT, [4])], outputs, weights), 16)


def branches_by_rate() -> ModelProto:
    """A rate chooses a branch, which pads by reflection: few lengths will do."""

    def branch(name: str, pad: int) -> GraphProto:
        pads = {f"{name}_p": np.array([0, pad, 0, pad], np.int64)}
        return _graph(
            [node("Pad", ["x", f"{name}_p"], [name], mode="reflect")], [], [value(name, FLOAT, [None, None])], pads
        )

    nodes = [
        node("Equal", ["sr", "rate"], ["is16"]),
        node("If", ["is16"], ["y"], then_branch=branch("t", 64), else_branch=branch("e", 32)),
    ]
    inputs = [value("x", FLOAT, [None, None]), value("sr", INT64, [])]
    weights = {"rate": np.array(16000, np.int64)}
    return _model(_graph(nodes, inputs, [value("y", FLOAT, [None, None])], weights), 16)


def short_time_fourier() -> ModelProto:
    """An STFT, which needs as many samples as its window has."""
    nodes = [node("STFT", ["x", "step", "window"], ["y"])]
    weights = {"step": np.array(160, np.int64), "window": np.hanning(320).astype(np.float32)}
    inputs = [value("x", FLOAT, ["batch_size", "N", 1])]
    return _model(_graph(nodes, inputs, [value("y", FLOAT, ["batch_size", "T", 161, 2])], weights), 17)


def function() -> ModelProto:
    """A local function that is called twice."""
    twice = helper.make_function(
        "local", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    nodes = [node("Twice", ["x"], ["h"], domain="local"), node("Twice", ["h"], ["y"], domain="local")]
    model = _model(_graph(nodes, [value("x", FLOAT, ["N", 3])], [value("y", FLOAT, ["N", 3])]), 17, local=1)
    model.functions.append(twice)
    return model


def dynamically_quantized() -> ModelProto:
    """One scale for all rows, found at run time."""
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "w", "z"], ["m"]),
        node("Cast", ["m"], ["f"], to=FLOAT),
        node("Mul", ["f", "s"], ["y"]),
    ]
    weights = {"w": _random.integers(-128, 127, (4, 3)).astype(np.int8)}
    return _model(_graph(nodes, [value("x", FLOAT, ["N", 4])], [value("y", FLOAT, ["N", 3])], weights), 13)


def declared_otherwise() -> ModelProto:
    """A shape in between that is declared otherwise than it is: notes of a tool that quantized without looking."""
    model = dynamically_quantized()
    model.graph.value_info.append(value("q", TensorProto.UINT8, ["N", 5]))
    return model


def quantize_dequantize() -> ModelProto:
    """QDQ around a MatMul."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        node("MatMul", ["d", "wd"], ["y"]),
    ]
    weights = {
        "s": np.array(0.02, np.float32),
        "z": np.array(128, np.uint8),
        "w": _random.integers(-128, 127, (4, 3)).astype(np.int8),
        "ws": np.array(0.01, np.float32),
        "wz": np.array(0, np.int8),
    }
    return _model(_graph(nodes, [value("x", FLOAT, ["N", 4])], [value("y", FLOAT, ["N", 3])], weights), 13)


def four_bits() -> ModelProto:
    """MatMulNBits, as language models have it."""
    nodes = [node("MatMulNBits", ["x", "w", "s"], ["y"], domain=MICROSOFT, K=32, N=8, bits=4, block_size=32)]
    weights = {"w": _random.integers(0, 256, (8, 1, 16)).astype(np.uint8), "s": np.abs(_floats(8))}
    return _model(
        _graph(nodes, [value("x", FLOAT, ["N", 32])], [value("y", FLOAT, ["N", 8])], weights), 21, 10, microsoft=1
    )


def half() -> ModelProto:
    """FP16 all through."""
    half_, weights = TensorProto.FLOAT16, {"w": _floats(4, 3).astype(np.float16)}
    return _model(
        _graph(
            [node("MatMul", ["x", "w"], ["y"])], [value("x", half_, ["N", 4])], [value("y", half_, ["N", 3])], weights
        )
    )


def trees() -> ModelProto:
    """A classifier of two trees with labels that are words, ai.onnx.ml 3."""
    nodes = [
        node(
            "TreeEnsembleClassifier",
            ["x"],
            ["label", "scores"],
            domain=ML,
            nodes_treeids=[0, 0, 0],
            nodes_nodeids=[0, 1, 2],
            nodes_featureids=[1, 0, 0],
            nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
            nodes_values=[0.2, 0.0, 0.0],
            nodes_truenodeids=[1, 0, 0],
            nodes_falsenodeids=[2, 0, 0],
            class_treeids=[0, 0],
            class_nodeids=[1, 2],
            class_ids=[0, 1],
            class_weights=[1.0, 1.0],
            classlabels_strings=["no", "yes"],
            post_transform="NONE",
        )
    ]
    outputs = [value("label", TensorProto.STRING, ["N"]), value("scores", FLOAT, ["N", 2])]
    return _model(_graph(nodes, [value("x", FLOAT, ["N", 3])], outputs), 17, ml=3)


def trees_of_tensors() -> ModelProto:
    """A TreeEnsemble of ai.onnx.ml 5, whose numbers are tensors."""
    tensor = helper.make_tensor
    nodes = [
        node(
            "TreeEnsemble",
            ["x"],
            ["y"],
            domain=ML,
            n_targets=1,
            tree_roots=[0],
            nodes_featureids=[1],
            nodes_modes=tensor("m", TensorProto.UINT8, [1], [0]),
            nodes_splits=tensor("s", FLOAT, [1], [0.25]),
            nodes_truenodeids=[0],
            nodes_falsenodeids=[1],
            nodes_trueleafs=[1],
            nodes_falseleafs=[1],
            leaf_targetids=[0, 0],
            leaf_weights=tensor("w", FLOAT, [2], [1.0, 2.0]),
        )
    ]
    return _model(_graph(nodes, [value("x", FLOAT, ["N", 3])], [value("y", FLOAT, ["N", 1])]), 21, 10, ml=5)


def nodes_of_one_name() -> ModelProto:
    """Constants of one name in the two branches and beside them, as inlining tools write them."""
    one = numpy_helper.from_array(_floats(3))
    nodes = [node("Constant", [], ["a"], "same", value=one), node("Constant", [], ["b"], "same", value=one)]
    nodes += [node("Add", ["x", "a"], ["h"], "add"), node("Add", ["h", "b"], ["y"], "sum")]
    return _model(_graph(nodes, [value("x", FLOAT, ["N", 3])], [value("y", FLOAT, ["N", 3])]), 16)


def refined_by_inference() -> ModelProto:
    """An output of which ONNX Runtime knows more than is declared."""
    nodes = [node("LSTM", ["x", "w", "r"], ["h", "last", "cell"], hidden_size=2)]
    weights = {"w": _floats(1, 8, 3), "r": _floats(1, 8, 2)}
    return _model(_graph(nodes, [value("x", FLOAT, [5, 1, 3])], [value("last", FLOAT, [1, "any", 2])], weights))


def divides() -> ModelProto:
    """A division of integers, which ends the process where the divisor is 0."""
    inputs = [value("a", INT64, ["N"]), value("b", INT64, ["N"])]
    return _model(_graph([node("Div", ["a", "b"], ["y"])], inputs, [value("y", INT64, ["N"])]))


def words_of_an_unknown_place() -> ModelProto:
    """Texts in lower case by the rules of a place that no machine knows: ONNX Runtime does not load it."""
    nodes = [node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER", locale="qq_QQ.UTF-8")]
    words = [value(name, TensorProto.STRING, ["N"]) for name in ("x", "y")]
    return _model(_graph(nodes, words[:1], words[1:]), 10, 5)


def splits_of_the_caller() -> ModelProto:
    """Parts whose sizes the caller gives, as a sequence."""
    nodes = [node("SplitToSequence", ["x", "sizes"], ["s"], axis=0), node("SequenceLength", ["s"], ["y"])]
    inputs = [value("x", FLOAT, ["N"]), value("sizes", INT64, ["M"])]
    return _model(_graph(nodes, inputs, [value("y", INT64, [])]), 12, 7)


def newest() -> ModelProto:
    """The newest opset and IR version that the onnx package writes and ONNX Runtime reads."""
    return _model(
        _graph([node("Identity", ["x"], ["y"])], [value("x", FLOAT, ["N"])], [value("y", FLOAT, ["N"])]), 26, 13
    )


def no_kernel() -> ModelProto:
    """An operator of opset 6 that ONNX Runtime has dropped."""
    nodes = [node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2])]
    return _model(_graph(nodes, [value("x", FLOAT, [1, 1, 4, 4])], [value("y", FLOAT, [1, 1, 3, 3])]), 6, 3)


def external(folder: Path) -> ModelProto:
    """Weights in a file beside the model's."""
    graph = _graph(
        [node("MatMul", ["x", "w"], ["y"])],
        [value("x", FLOAT, ["N", 16])],
        [value("y", FLOAT, ["N", 16])],
        {"w": _floats(16, 16)},
    )
    model = _model(graph)
    onnx.external_data_helper.convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save(model, folder / "model.onnx")
    return model


MODELS: dict[str, Callable[[], ModelProto]] = {
    make.__name__: make
    for make in (
        classifier_of_2018,
        convolution_of_2018,
        weight_that_is_no_input_of_2018,
        loop,
        branches_by_rate,
        short_time_fourier,
        function,
        dynamically_quantized,
        declared_otherwise,
        quantize_dequantize,
        four_bits,
        half,
        trees,
        trees_of_tensors,
        nodes_of_one_name,
        refined_by_inference,
        divides,
        words_of_an_unknown_place,
        splits_of_the_caller,
        newest,
        no_kernel,
    )
}


def write(name: str, folder: Path) -> Path:
    """Write the model of that name into ``folder``; return its file."""
    path = folder / "model.onnx"
    if name == "external":
        external(folder)
    else:
        path.write_bytes(MODELS[name]().SerializeToString())
    return path
