"""Estimates against peaks that were measured: ``onnx-server serve`` with ONNX Runtime 1.32 on one core of x86-64.

Each process loaded the model, warmed up and answered three requests; ``python -m benchmarks.memory`` measures anew.
"""

from collections.abc import Iterable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelkit import linear, model, tensor, value, verdict
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from benchmarks import cases, memory_cases
from onnx_operator.api.report import MemoryEstimate
from onnx_operator.model.figures.memory import estimate_memory
from onnx_operator.model.reading.skeleton import KEEP_BYTES, Weight

MIB = 1 << 20
LIGHT_PEAK_MIB = {
    "bvlc_alexnet": 463,
    "densenet121": 167,
    "inception_v1": 143,
    "inception_v2": 184,
    "resnet50": 304,
    "shufflenet": 118,
    "squeezenet": 115,
    "vgg19": 971,
    "zfnet512": 698,
}
FILLED_PEAK_MIB = {
    "bvlc_alexnet": 463,
    "densenet121": 184,
    "inception_v1": 150,
    "inception_v2": 187,
    "resnet50": 303,
    "shufflenet": 117,
    "squeezenet": 117,
    "vgg19": 1030,
    "zfnet512": 707,
}
OTHER_PEAK_MIB = {
    "iris": 88,
    "mlp": 89,
    "wide": 278,
    "lstm": 170,
    "transformer": 217,
    "transformer_256": 217,
    "embedding": 476,
    "unet": 375,
    "half_precision": 136,
    "separable": 147,
    "separable_4": 221,
    "superresolution": 399,
    "sound": 226,
    "gru": 156,
}
FILLED_SERVING_MIB = {
    "bvlc_alexnet": 342,
    "densenet121": 171,
    "inception_v1": 146,
    "inception_v2": 160,
    "resnet50": 218,
    "shufflenet": 119,
    "squeezenet": 118,
    "vgg19": 708,
    "zfnet512": 456,
}
OTHER_SERVING_MIB = {
    "iris": 89,
    "wide": 222,
    "lstm": 171,
    "transformer": 216,
    "embedding": 289,
    "unet": 376,
    "half_precision": 137,
    "sound": 230,
    "superresolution": 383,
}
BESIDE_PEAK_MIB = {"resnet50": 295, "vgg19": 965}
node = helper.make_node


def hollow(m: ModelProto, *, file: str = "") -> tuple[ModelProto, dict[str, Weight]]:
    """The model without the values of large tensors, as it is read, and a list of these."""
    weights: dict[str, Weight] = {}
    for each in list(m.graph.initializer):
        size = len(each.raw_data)
        if size > KEEP_BYTES:
            weights[each.name] = Weight(each.name, each.data_type, tuple(each.dims), size, raw=True, file=file)
            m.graph.initializer.remove(each)
    declared = {each.name for each in m.graph.input}
    absent = [each for each in weights.values() if each.name not in declared]
    m.graph.input.extend(helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in absent)
    return m, weights


def filled(name: str, *, file: str = "") -> tuple[ModelProto, dict[str, Weight]]:
    """A light model with weights in place of the constants that it computes; their values are not here."""
    m = cases.light(name)
    shapes = {each.name: numpy_helper.to_array(each).tolist() for each in m.graph.initializer}
    made = {n.output[0]: shapes[n.input[0]] for n in m.graph.node if n.op_type == "ConstantOfShape"}
    kept = [n for n in m.graph.node if n.op_type != "ConstantOfShape"]
    del m.graph.node[:]
    m.graph.node.extend(kept)
    sizes = {name: 4 * int(np.prod(dims)) for name, dims in made.items()}
    weights = {n: Weight(n, TensorProto.FLOAT, tuple(made[n]), sizes[n], raw=True, file=file) for n in made}
    m.graph.input.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, dims) for n, dims in made.items())
    return m, weights


def memory(m: ModelProto | bytes) -> MemoryEstimate:
    report = verdict(m).report
    assert report is not None
    return report.memory


def assert_close(estimate: MemoryEstimate, measured_mib: int) -> None:
    assert 0.9 * measured_mib <= estimate.resident_bytes / MIB <= 1.25 * measured_mib


@pytest.mark.parametrize("name", LIGHT_PEAK_MIB)
def test_models_whose_weights_are_made_while_loading_are_estimated_within_the_bounds(name) -> None:
    assert_close(memory(cases.light(name)), LIGHT_PEAK_MIB[name])


@pytest.mark.parametrize("name", FILLED_PEAK_MIB)
def test_models_with_weights_in_the_file_are_estimated_without_reading_these(name) -> None:
    m, weights = filled(name)
    assert_close(estimate_memory(m, weights), FILLED_PEAK_MIB[name])


@pytest.mark.parametrize("name", FILLED_SERVING_MIB)
def test_what_a_network_takes_once_it_is_loaded_is_estimated_within_the_bounds(name) -> None:
    m, weights = filled(name)
    found = estimate_memory(m, weights)
    assert 0.9 <= found.serving_bytes / MIB / FILLED_SERVING_MIB[name] <= 1.25
    assert found.serving_bytes <= found.resident_bytes


@pytest.mark.parametrize("name", OTHER_SERVING_MIB)
def test_what_others_take_once_they_are_loaded_is_estimated_within_the_bounds(name) -> None:
    case = next(each for each in memory_cases.CASES if each.name == name)
    m, weights = hollow(case.make())
    found = estimate_memory(m, weights, sizes=case.sizes)
    assert 0.9 <= found.serving_bytes / MIB / OTHER_SERVING_MIB[name] <= 1.26
    assert found.serving_bytes <= found.resident_bytes


@pytest.mark.parametrize("name", BESIDE_PEAK_MIB)
def test_models_with_weights_in_a_file_of_their_own_are_estimated_within_the_bounds(name) -> None:
    m, weights = filled(name, file="weights.bin")
    assert_close(estimate_memory(m, weights), BESIDE_PEAK_MIB[name])


@pytest.mark.parametrize("name", OTHER_PEAK_MIB)
def test_models_of_other_kinds_are_estimated_within_the_bounds(name) -> None:
    case = next(each for each in memory_cases.CASES if each.name == name)
    m, weights = hollow(case.make())
    assert_close(estimate_memory(m, weights, sizes=case.sizes), OTHER_PEAK_MIB[name])


@pytest.mark.parametrize(
    ("nodes", "leaf_weights", "measured_mib"), [(276328, 138264, 212), (304128, 1521140, 409), (572122, 858633, 424)]
)
def test_decision_trees_count_by_their_nodes(nodes, leaf_weights, measured_mib) -> None:
    trees = node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "y"],
        domain="ai.onnx.ml",
        nodes_featureids=np.zeros(nodes, np.int64).tolist(),
        class_ids=np.zeros(leaf_weights, np.int64).tolist(),
    )
    m = model([trees], outputs=[value("y")], opsets=[("", 17), ("ai.onnx.ml", 3)])
    assert_close(estimate_memory(m, {}), measured_mib)


def test_tables_in_a_file_of_their_own_come_in_page_by_page() -> None:
    case = next(each for each in memory_cases.CASES if each.name == "embedding")
    m, weights = hollow(case.make(), file="weights.bin")
    estimate = estimate_memory(m, weights)
    assert_close(estimate, 88)
    assert estimate.weights_bytes > 195 * MIB


def test_values_that_live_at_the_same_time_count_together() -> None:
    shape = (256, 1024)
    chain = [node("Relu", ["x" if i == 0 else f"h{i}"], [f"h{i + 1}"]) for i in range(9)]
    last = [node("Relu", ["h9"], ["y"])]
    in_turn = memory(model(chain + last, [value("x", shape)], [value("y", shape)]))
    kept = memory(
        model([*chain, node("Sum", [f"h{i}" for i in range(1, 10)], ["y"])], [value("x", shape)], [value("y", shape)])
    )
    assert in_turn.activations_bytes == 2 * MIB
    assert kept.activations_bytes >= 10 * MIB


def test_what_is_computed_once_stays_for_good() -> None:
    size = numpy_helper.from_array(np.array([512, 1024], np.int64), "size")
    m = model(
        [node("ConstantOfShape", ["size"], ["c"]), node("Exp", ["c"], ["e"]), node("Add", ["x", "e"], ["y"])],
        inputs=[value("x", (1,))],
        outputs=[value("y", (512, 1024))],
        initializers=[size],
    )
    assert memory(m).weights_bytes == 2 * MIB


def test_equal_constants_are_made_once() -> None:
    def m(*fills: float) -> ModelProto:
        sizes = [numpy_helper.from_array(np.array([512, 1024], np.int64), f"size{i}") for i in range(len(fills))]
        nodes, total = [], "x"
        for i, fill in enumerate(fills):
            values = numpy_helper.from_array(np.array([fill], np.float32))
            nodes += [node("ConstantOfShape", [f"size{i}"], [f"c{i}"], value=values)]
            nodes += [node("Add", [total, f"c{i}"], [f"s{i}"])]
            total = f"s{i}"
        nodes.append(node("Relu", [total], ["y"]))
        return model(nodes, [value("x", (1,))], [value("y", (512, 1024))], sizes)

    assert memory(m(0.5, 0.5, 0.5)).weights_bytes == 2 * MIB
    assert memory(m(0.5, 0.25, 0.125)).weights_bytes == 6 * MIB


def test_quantized_weights_count_as_the_integers_that_they_are() -> None:
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "scale")
    m = model(
        [node("DequantizeLinear", ["w", "scale"], ["f"]), node("MatMul", ["x", "f"], ["y"])],
        inputs=[value("x", ("N", 1024))],
        outputs=[value("y", ("N", 1024))],
        initializers=[tensor("w", 1024, 1024, kind=np.int8), scale],
    )
    assert memory(m).weights_bytes == MIB + 4


def test_open_dimensions_count_as_one() -> None:
    fixed = memory(model([node("Relu", ["x"], ["y"])], [value("x", (1, 1000))], [value("y", (1, 1000))]))
    free = memory(model([node("Relu", ["x"], ["y"])], [value("x", ("N", 1000))], [value("y", ("N", 1000))]))
    assert fixed == free


def test_open_dimensions_can_be_given_by_name() -> None:
    m = model([node("Relu", ["x"], ["y"])], [value("x", ("N", 1000))], [value("y", ("N", 1000))])
    assert estimate_memory(m, {}, sizes={"N": 500}).activations_bytes == 2 * 500 * 1000 * 4


def test_subgraphs_count() -> None:
    body = helper.make_graph(
        [node("Add", ["x", "w"], ["b"])], "body", [], [value("b", (512, 1024))], [tensor("w", 512, 1024)]
    )
    other = helper.make_graph([node("Identity", ["x"], ["b"])], "other", [], [value("b", (512, 1024))])
    m = model(
        [node("If", ["c"], ["y"], then_branch=body, else_branch=other)],
        inputs=[value("x", (512, 1024)), value("c", (), TensorProto.BOOL)],
        outputs=[value("y", (512, 1024))],
    )
    estimate = memory(m)
    assert estimate.weights_bytes == 2 * MIB
    assert estimate.activations_bytes >= 6 * MIB


def test_values_inside_functions_count() -> None:
    nodes = [node("Expand", ["a", "size"], ["wide"]), node("ReduceSum", ["wide"], ["b"], keepdims=0)]
    size = node("Constant", [], ["size"], value=numpy_helper.from_array(np.array([1024, 1024])))
    function = helper.make_function("own", "Grow", ["a"], ["b"], [size, *nodes], [helper.make_opsetid("", 17)])
    m = model(
        [node("Grow", ["x"], ["y"], domain="own")],
        inputs=[value("x", (1,))],
        outputs=[value("y", ())],
        opsets=[("", 17), ("own", 1)],
        functions=[function],
    )
    assert memory(m).activations_bytes >= 4 * MIB


def test_operators_without_a_definition_are_taken_to_keep_sizes() -> None:
    chain = [node("Gelu", ["x" if i == 0 else f"h{i}"], [f"h{i + 1}"], domain="com.microsoft") for i in range(3)]
    m = model(
        [*chain, node("Relu", ["h3"], ["y"])],
        [value("x", (256, 1024))],
        [value("y", (256, 1024))],
        opsets=[("", 17), ("com.microsoft", 1)],
    )
    assert estimate_memory(m, {}).activations_bytes == 2 * MIB


def test_absurd_sizes_do_not_overflow() -> None:
    m = model([node("Relu", ["x"], ["y"])], [value("x", (2**40, 2**40))], [value("y", (2**40, 2**40))])
    assert memory(m).resident_bytes < 2**63


def network(widths: list[int], operators: Iterable[str], batch: int) -> tuple[ModelProto, dict[str, Weight]]:
    nodes: list[NodeProto] = []
    weights: dict[str, Weight] = {}
    last = "x"
    for i, (before, after, operator) in enumerate(zip(widths, widths[1:], operators, strict=False)):
        if operator == "MatMul":
            weights[f"w{i}"] = Weight(f"w{i}", TensorProto.FLOAT, (before, after), 4 * before * after, raw=True)
            nodes.append(node("MatMul", [last, f"w{i}"], [f"h{i}"]))
            last = f"h{i}"
        nodes.append(node("Relu", [last], [f"r{i}"]))
        last = f"r{i}"
    width = widths[0]
    m = model([*nodes, node("Identity", [last], ["y"])], [value("x", (batch, width))], [value("y", None)])
    m.graph.input.extend(helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights.values())
    return m, weights


WIDTHS = st.lists(st.integers(1, 2**20), min_size=2, max_size=6)


@settings(max_examples=60, deadline=None)
@given(WIDTHS, st.integers(1, 2**31), st.integers(2, 1000))
def test_more_rows_never_need_less(widths, batch, times) -> None:
    operators = ["MatMul"] * len(widths)
    one = estimate_memory(*network(widths, operators, batch))
    more = estimate_memory(*network(widths, operators, batch * times))
    assert 0 <= one.activations_bytes <= more.activations_bytes
    assert 0 < one.resident_bytes <= more.resident_bytes < 2**63


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2**20), st.integers(1, 2**20), st.integers(2, 1000))
def test_a_larger_matrix_never_needs_less(rows, columns, times) -> None:
    one, more = (estimate_memory(*network([rows, each], ["MatMul"], 1)) for each in (columns, columns * times))
    assert 0 < one.weights_bytes < more.weights_bytes
    assert 0 < one.resident_bytes <= more.resident_bytes


@settings(max_examples=60, deadline=None)
@given(WIDTHS, st.lists(st.sampled_from(["MatMul", "Relu"]), min_size=6, max_size=6), st.integers(1, 2**62))
def test_an_estimate_holds_at_least_the_weights_and_the_runtime(widths, operators, batch) -> None:
    square = [widths[0]] * len(widths)
    estimate = estimate_memory(*network(square, operators, batch))
    assert min(estimate.weights_bytes + 80 * MIB, 1 << 60) <= estimate.resident_bytes <= 1 << 60


def test_a_linear_model_takes_hardly_more_than_the_runtime() -> None:
    assert memory(linear()).resident_bytes < 90 * MIB


def test_where_nothing_is_open_shapes_are_inferred_once(monkeypatch) -> None:
    m = model([node("Relu", ["x"], ["y"])], [value("x", (1, 8))], [value("y", (1, 8))])
    inferred = onnx.shape_inference.infer_shapes(m)
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", None)
    assert estimate_memory(inferred, {}, inferred=inferred).activations_bytes > 0
