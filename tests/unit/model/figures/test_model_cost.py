"""Operations, parameters and operators of a model: a multiplication with its addition is two operations."""

import math
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelkit import model, tensor, value
from onnx import TensorProto, helper, numpy_helper

from onnx_operator.model.figures.cost import flops_by_node, operator_counts, parameter_count, total_flops
from onnx_operator.model.figures.sized import size_model
from onnx_operator.model.reading.skeleton import Weight

node = helper.make_node
LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"


def flops(m: onnx.ModelProto, name: str = "y") -> int:
    return flops_by_node(size_model(m, ()))[name]


def one(
    operator: str, shapes: list[tuple], out: tuple | None, *, domain: str = "", opset: int = 17, **attributes
) -> int:
    """Operations of a model of this one node, all its inputs given by callers."""
    names = [f"x{i}" for i in range(len(shapes))]
    m = model(
        [node(operator, names, ["y"], domain=domain, **attributes)],
        [value(name, shape) for name, shape in zip(names, shapes, strict=True)],
        [value("y", out)],
        opsets=[("", opset), ("com.microsoft", 1), ("ai.onnx.ml", 3)],
    )
    return flops(m)


@pytest.mark.parametrize(
    ("operator", "shapes", "attributes", "expected"),
    [
        ("Conv", [(1, 3, 8, 8), (16, 3, 3, 3)], {"pads": [1] * 4}, 2 * 16 * 64 * 27),
        ("Conv", [(1, 8, 8, 8), (8, 1, 3, 3)], {"pads": [1] * 4, "group": 8}, 2 * 8 * 64 * 9),
        ("ConvTranspose", [(1, 4, 5, 5), (4, 6, 2, 2)], {"strides": [2, 2]}, 2 * 4 * 25 * 6 * 4),
        ("Gemm", [(5, 7), (7, 3)], {}, 2 * 5 * 7 * 3),
        ("Gemm", [(7, 5), (7, 3)], {"transA": 1}, 2 * 5 * 7 * 3),
        ("MatMul", [(2, 5, 7), (7, 3)], {}, 2 * 2 * 5 * 7 * 3),
        ("MatMul", [(7,), (7, 3)], {}, 2 * 7 * 3),
        ("Einsum", [(2, 5, 7), (2, 7, 3)], {"equation": "bij,bjk->bik"}, 2 * 2 * 5 * 7 * 3),
        ("Einsum", [(4, 2, 5, 7), (4, 2, 7, 3)], {"equation": "...ij,...jk->...ik"}, 2 * 8 * 5 * 7 * 3),
        ("LSTM", [(9, 2, 5), (1, 16, 5), (1, 16, 4)], {"hidden_size": 4}, 9 * 2 * (2 * 16 * (5 + 4) + 2 * 16)),
        ("Softmax", [(4, 10)], {}, 5 * 40),
        ("BatchNormalization", [(1, 3, 4, 4), (3,), (3,), (3,), (3,)], {}, 2 * 48),
        ("MaxPool", [(1, 3, 8, 8)], {"kernel_shape": [2, 2], "strides": [2, 2]}, 3 * 16 * 4),
        ("GlobalAveragePool", [(1, 3, 8, 8)], {}, 3 * 64),
        ("ReduceMean", [(4, 10)], {"axes": [1]}, 40),
        ("Sum", [(4, 10), (4, 10), (4, 10)], {}, 2 * 40),
        ("Relu", [(4, 10)], {}, 40),
        ("Transpose", [(4, 10)], {}, 0),
        ("Celu", [(4, 10)], {}, 80),
        ("Tanh", [(4, 10)], {}, 40),
    ],
)
def test_operators_count_what_they_compute(operator, shapes, attributes, expected) -> None:
    assert one(operator, shapes, None, **attributes) == expected


def test_attention_counts_both_products_and_the_softmax() -> None:
    products = 2 * 2 * 4 * 6 * 9 * 8 * 2  # of 2 × 4 heads, 6 queries, 9 keys, 8 numbers each
    scores = 5 * 2 * 4 * 6 * 9
    shapes = [(2, 4, 6, 8), (2, 4, 9, 8), (2, 4, 9, 8)]
    assert one("Attention", shapes, None, opset=23) == products + scores


def test_attention_of_one_input_also_counts_what_makes_queries_keys_and_values() -> None:
    made = 2 * 2 * 6 * 32 * 96
    products = 2 * 2 * 4 * 6 * 6 * 8 * 2
    scores = 5 * 2 * 4 * 6 * 6
    shapes = [(2, 6, 32), (32, 96), (96,)]
    got = one("Attention", shapes, (2, 6, 32), domain="com.microsoft", num_heads=4)
    assert got == made + products + scores


def test_attention_over_heads_counts_the_past() -> None:
    keys = 6 + 10
    shapes = [(2, 6, 32), (2, 6, 32), (2, 6, 32), (2, 4, 10, 8), (2, 4, 10, 8)]
    got = one("GroupQueryAttention", shapes, (2, 6, 32), domain="com.microsoft", num_heads=4, kv_num_heads=4)
    assert got == 4 * 2 * 6 * 32 * keys + 5 * 2 * 6 * 4 * keys


def test_quantized_convolutions_count_like_others() -> None:
    scalars = [("s", np.float32(1)), ("z", np.uint8(0))]
    initializers = [numpy_helper.from_array(np.array(number), name) for name, number in scalars]
    initializers.append(tensor("w", 16, 3, 3, 3, kind=np.uint8))
    m = model(
        [node("QLinearConv", ["x", "s", "z", "w", "s", "z", "s", "z"], ["y"], pads=[1] * 4)],
        [value("x", (1, 3, 8, 8), TensorProto.UINT8)],
        [value("y", None, TensorProto.UINT8)],
        initializers,
    )
    assert flops(m) == 2 * 16 * 64 * 27


def test_fourier_transforms_count_as_is_customary() -> None:
    m = model([node("DFT", ["x"], ["y"], axis=1)], [value("x", (1, 1024, 1))], [value("y", (1, 1024, 2))])
    assert flops(m) == 5 * 1024 * 10


def test_trees_count_a_comparison_for_each_level() -> None:
    trees = node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        nodes_treeids=[0] * 7 + [1] * 15,
        nodes_featureids=[0] * 22,
    )
    m = model([trees], [value("x", ("N", 4))], [value("y", ("N", 1))], opsets=[("", 17), ("ai.onnx.ml", 3)])
    assert flops(m) == (3 + 1) + (4 + 1)


def test_classical_linear_models_count_their_coefficients() -> None:
    got = one("LinearRegressor", [(5, 4)], None, domain="ai.onnx.ml", coefficients=[1.0] * 4, intercepts=[0.0])
    assert got == 2 * 5 * 4


def test_a_batch_that_is_open_counts_as_one() -> None:
    m = model([node("Relu", ["x"], ["y"])], [value("x", ("N", 10))], [value("y", ("N", 10))])
    assert flops(m) == 10


def loop(turns: int | None) -> onnx.ModelProto:
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Exp", ["a"], ["b"])],
        "body",
        [value("i", (), TensorProto.INT64), value("go", (), TensorProto.BOOL), value("a", (10,))],
        [value("on", (), TensorProto.BOOL), value("b", (10,))],
    )
    given = [value("n", (), TensorProto.INT64)] if turns is None else []
    stored = [] if turns is None else [numpy_helper.from_array(np.array(turns, np.int64), "n")]
    return model(
        [node("Loop", ["n", "", "x"], ["y"], body=body)], [value("x", (10,)), *given], [value("y", (10,))], stored
    )


def test_loops_count_all_their_turns_where_the_number_is_known() -> None:
    assert flops(loop(100), "b") == 1000
    assert flops(loop(None), "b") == 10


def test_scans_count_a_turn_for_each_element() -> None:
    body = helper.make_graph([node("Exp", ["a"], ["b"])], "body", [value("a", (10,))], [value("b", (10,))])
    m = model(
        [node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)], [value("x", (25, 10))], [value("y", (25, 10))]
    )
    assert flops(m, "b") == 250


def test_of_two_branches_the_dearer_one_counts_in_the_total() -> None:
    def branch(operators: list[str], name: str) -> onnx.GraphProto:
        names = [f"{name}{i}" for i in range(len(operators))]
        nodes = [
            node(op, [before], [after]) for op, before, after in zip(operators, ["x", *names], names, strict=False)
        ]
        return helper.make_graph(nodes, name, [], [value(names[-1], (10,))])

    m = model(
        [node("If", ["c"], ["y"], then_branch=branch(["Exp"] * 3, "t"), else_branch=branch(["Exp"], "e"))],
        [value("x", (10,)), value("c", (), TensorProto.BOOL)],
        [value("y", (10,))],
    )
    sized = size_model(m, ())
    assert total_flops(sized, flops_by_node(sized)) == 30


def with_function() -> onnx.ModelProto:
    function = helper.make_function(
        "own",
        "Twice",
        ["a", "w"],
        ["b"],
        [node("MatMul", ["a", "w"], ["m"]), node("Relu", ["m"], ["r"]), node("MatMul", ["r", "w"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    return model(
        [node("Twice", ["x", "w"], ["h"], domain="own"), node("Twice", ["h", "w"], ["y"], domain="own")],
        [value("x", (1, 8))],
        [value("y", (1, 8))],
        [tensor("w", 8, 8)],
        opsets=[("", 17), ("own", 1)],
        functions=[function],
    )


def test_a_call_of_a_function_counts_what_is_in_it() -> None:
    m = with_function()
    assert flops(m, "h") == flops(m, "y") == 2 * (2 * 64) + 8
    assert operator_counts(m) == {"MatMul": 4, "Relu": 2}


def test_functions_that_double_each_other_are_counted_at_once() -> None:
    functions = [
        helper.make_function(
            "own",
            f"F{i}",
            ["a"],
            ["c"],
            [
                node("Exp" if i == 0 else f"F{i - 1}", ["a"], ["b"], domain="" if i == 0 else "own"),
                node("Exp" if i == 0 else f"F{i - 1}", ["b"], ["c"], domain="" if i == 0 else "own"),
            ],
            [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
        )
        for i in range(12)
    ]
    m = model(
        [node("F11", ["x"], ["y"], domain="own")],
        [value("x", (10,))],
        [value("y", (10,))],
        opsets=[("", 17), ("own", 1)],
        functions=functions,
    )
    assert operator_counts(m) == {"Exp": 2**12}
    assert flops(m) == 10 * 2**12


def test_operators_come_with_their_domain_and_the_most_frequent_first() -> None:
    m = model(
        [
            node("Gelu", ["x"], ["a"], domain="com.microsoft"),
            node("Relu", ["a"], ["b"], domain="ai.onnx"),
            node("Relu", ["b"], ["c"]),
            node("Add", ["c", "c"], ["y"]),
        ]
    )
    assert list(operator_counts(m).items()) == [("Relu", 2), ("Add", 1), ("com.microsoft.Gelu", 1)]


def test_parameters_are_numbers_in_weights_wherever_these_are() -> None:
    constant = node("Constant", [], ["c"], value=tensor("", 5))
    shape = numpy_helper.from_array(np.array([0, -1]), "shape")
    m = model([constant, node("Add", ["x", "c"], ["y"])], initializers=[tensor("w", 2, 3), shape])
    weights = {"big": Weight("big", TensorProto.INT8, (1000, 1000), 1000000, raw=True)}
    assert parameter_count(m, weights) == 5 + 6 + 1000000


def test_coefficients_of_classical_models_are_parameters() -> None:
    linear = node("LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", coefficients=[1.0] * 4, intercepts=[0.0])
    m = model([linear], outputs=[value("y", ("N", 1))], opsets=[("", 17), ("ai.onnx.ml", 3)])
    assert parameter_count(m, {}) == 5


# Multiply-adds as published with the networks, times two: torchvision's model pages (ResNet-50 4.09, DenseNet-121
# 2.83, VGG-19 19.63, Inception v1 1.5, SqueezeNet 1.1 0.35 in 10⁹).
@pytest.mark.parametrize(
    ("name", "giga"),
    [("resnet50", 8.18), ("densenet121", 5.67), ("vgg19", 39.3), ("inception_v1", 3.0), ("squeezenet", 0.7)],
)
def test_known_networks_agree_with_the_figures_published_for_them(name, giga) -> None:
    sized = size_model(onnx.load(LIGHT / f"light_{name}.onnx"), ())
    total = total_flops(sized, flops_by_node(sized)) / 1e9
    assert total == pytest.approx(giga, rel=0.1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=5), st.integers(2, 100))
def test_counts_are_never_negative_nor_beyond_bounds_and_grow_with_sizes(shape, times) -> None:
    larger = (shape[0] * times, *shape[1:])
    few, many = (one("Softmax", [tuple(dims)], None) for dims in (shape, larger))
    assert 0 <= few <= many <= 1 << 60
    if math.prod(larger) < 1 << 50:
        assert many == times * few
