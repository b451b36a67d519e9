from pathlib import Path

import numpy as np
import onnx
import pytest
from modelkit import model, tensor, value
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestRegressor

from onnx_operator.api.capabilities import KernelTable
from onnx_operator.api.providers import ProviderTable, Rule
from onnx_operator.api.report import ProviderCoverage
from onnx_operator.model.figures.coverage import coverage
from onnx_operator.model.figures.provider_support import Support, Use

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
NAMES = ["CPU", "CUDA", "TensorRT", "OpenVINO", "MIGraphX", "ROCm"]
ACCELERATORS = NAMES[1:]


def by_provider(given, flops=None, **options) -> dict[str, ProviderCoverage]:
    inferred = onnx.shape_inference.infer_shapes(given, data_prop=True)
    return {each.provider: each for each in coverage(inferred, flops or {}, **options)}


def fallbacks(given, flops=None, **options) -> dict[str, list[str]]:
    return {name: each.fallback_operators for name, each in by_provider(given, flops, **options).items()}


def one(operator, inputs=("x",), *, kind=TensorProto.FLOAT, out=None, initializers=(), opset=17, shape=(2, 4), **attrs):
    node = helper.make_node(operator, list(inputs), ["y"], **attrs)
    y = helper.make_empty_tensor_value_info("y") if out is None else value("y", None, out)
    opsets = [("", opset), ("com.microsoft", 1)]
    return model([node], [value("x", shape, kind)], [y], initializers, opsets=opsets, ir_version=8)


@pytest.mark.parametrize("name", ["resnet50", "squeezenet", "densenet121", "vgg19"])
def test_networks_for_pictures_run_whole_on_every_accelerator(name):
    given = onnx.load(LIGHT / f"light_{name}.onnx")
    found = by_provider(given, {node.output[0]: 1 for node in given.graph.node})
    assert list(found) == NAMES
    for each in found.values():
        assert each.total_nodes == each.covered_nodes == len(given.graph.node), each
        assert each.fallback_operators == []
        assert each.fallback_flops_share == 0


def test_a_forest_runs_on_the_cpu_alone_with_all_its_operations():
    rows = np.arange(40, dtype=np.float32).reshape(10, 4)
    forest = RandomForestRegressor(n_estimators=3).fit(rows, rows.sum(axis=1))
    given = to_onnx(forest, rows[:1], target_opset={"": 17, "ai.onnx.ml": 3})
    found = by_provider(given, {given.graph.node[0].output[0]: 100})
    assert found["CPU"].fallback_operators == []
    for name in ACCELERATORS:
        assert found[name].covered_nodes < found[name].total_nodes
        assert found[name].fallback_operators == ["ai.onnx.ml.TreeEnsembleRegressor"]
        assert found[name].fallback_flops_share == 1.0


def test_a_model_may_run_in_part_with_the_share_of_operations_that_falls_back():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
        helper.make_node("Det", ["x"], ["d"]),
    ]
    given = model(nodes, [value("x", (4, 4))], [value("y", (4, 4)), value("d", ())], [tensor("w", 4, 4)])
    found = by_provider(given, {"h": 128, "y": 16, "d": 48})
    assert (found["CUDA"].covered_nodes, found["CUDA"].total_nodes) == (2, 3)
    assert found["CUDA"].fallback_operators == ["Det"]
    assert found["CUDA"].fallback_flops_share == 0.25


def test_texts_are_for_the_cpu():
    nodes = [
        helper.make_node("StringNormalizer", ["t"], ["n"], case_change_action="LOWER"),
        helper.make_node("Equal", ["n", "word"], ["same"]),
        helper.make_node("Cast", ["same"], ["y"], to=TensorProto.FLOAT),
    ]
    word = helper.make_tensor("word", TensorProto.STRING, [1], [b"a"])
    given = model(nodes, [value("t", (3,), TensorProto.STRING)], [value("y", (3,))], [word], opsets=[("", 19)])
    for name, operators in fallbacks(given).items():
        assert operators == ([] if name == "CPU" else ["Equal", "StringNormalizer"]), name


@pytest.mark.parametrize(
    ("kind", "computed"),
    [
        (TensorProto.FLOAT, True),
        (TensorProto.FLOAT16, True),
        (TensorProto.DOUBLE, True),
        (TensorProto.INT32, False),
        (TensorProto.INT8, False),
    ],
)
def test_types_decide_whether_cuda_has_a_kernel(kind, computed):
    assert fallbacks(one("Relu", kind=kind, out=kind))["CUDA"] == ([] if computed else ["Relu"])


def test_suppression_of_boxes_is_not_for_double_on_tensorrt_alone():
    nodes = [helper.make_node("NonMaxSuppression", ["b", "s"], ["y"])]
    given = model(nodes, [value("b", (1, 5, 4)), value("s", (1, 1, 5))], [value("y", (None, 3), TensorProto.INT64)])
    assert all(not operators for operators in fallbacks(given).values())
    boxes = [value("b", (1, 5, 4), TensorProto.BFLOAT16), value("s", (1, 1, 5), TensorProto.BFLOAT16)]
    given = model(nodes, boxes, [value("y", (None, 3), TensorProto.INT64)])
    assert fallbacks(given)["TensorRT"] == ["NonMaxSuppression"]


def test_computing_a_shape_falls_back_nowhere():
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["y"]),
    ]
    numbers = [
        onnx.numpy_helper.from_array(np.array(0), "zero"),
        onnx.numpy_helper.from_array(np.array([0]), "axes"),
        onnx.numpy_helper.from_array(np.array([-1]), "rest"),
    ]
    given = model(nodes, [value("x", ("N", 2, 2))], [value("y", ("N", 4))], numbers)
    for each in by_provider(given).values():
        assert each.fallback_operators == [], each
        assert each.covered_nodes == 5


def test_what_is_computed_while_loading_falls_back_nowhere():
    nodes = [
        helper.make_node("Det", ["w"], ["scale"]),
        helper.make_node("Mul", ["x", "scale"], ["y"]),
    ]
    given = model(nodes, initializers=[tensor("w", 4, 4)])
    assert all(not operators for operators in fallbacks(given, {"scale": 100, "y": 8}).values())
    # A caller may replace an initializer that is an input too.
    open_weight = model(nodes, [value("x"), value("w", (4, 4))], initializers=[tensor("w", 4, 4)])
    assert fallbacks(open_weight)["CUDA"] == ["Det"]
    # Files of that age have all initializers among their inputs.
    old = model(nodes, [value("x"), value("w", (4, 4))], initializers=[tensor("w", 4, 4)], opsets=[("", 11)])
    old.ir_version = 3
    assert fallbacks(old)["CUDA"] == []


def test_weights_that_stand_among_the_inputs_are_known_while_loading():
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"])]
    given = model(nodes, [value("x"), value("axes", (1,), TensorProto.INT64)], [value("y", None)])
    assert fallbacks(given)["TensorRT"] == ["ReduceSum"]
    assert fallbacks(given, weights=["axes"])["TensorRT"] == []


def _choice() -> onnx.ModelProto:
    then = helper.make_graph(
        [helper.make_node("Det", ["x"], ["d"]), helper.make_node("Relu", ["d"], ["a"])], "t", [], [value("a", ())]
    )
    other = helper.make_graph([helper.make_node("ReduceMax", ["x"], ["b"], keepdims=0)], "e", [], [value("b", ())])
    nodes = [
        helper.make_node("If", ["c"], ["i"], then_branch=then, else_branch=other),
        helper.make_node("Relu", ["i"], ["y"]),
    ]
    return model(nodes, [value("x", (4, 4)), value("c", (), TensorProto.BOOL)], [value("y", ())])


def test_nodes_of_branches_count():
    found = by_provider(_choice(), {"d": 60, "a": 20, "b": 20})
    assert (found["CUDA"].covered_nodes, found["CUDA"].total_nodes) == (4, 5)
    assert found["CUDA"].fallback_operators == ["Det"]
    assert found["CUDA"].fallback_flops_share == 0.6


def test_where_branches_run_with_their_node_they_fall_back_with_it():
    found = by_provider(_choice(), {"d": 60, "a": 20, "b": 20})
    assert found["MIGraphX"].fallback_operators == ["Det", "If", "ReduceMax", "Relu"]
    assert (found["MIGraphX"].covered_nodes, found["MIGraphX"].fallback_flops_share) == (1, 1.0)


def test_with_many_gaps_migraphx_takes_nothing():
    def chain(gaps):
        nodes = [helper.make_node("Relu", ["x"], ["h0"])]
        nodes += [helper.make_node("IsInf", [f"h{i}"], [f"b{i}"]) for i in range(1)]
        nodes += [helper.make_node("IsInf", ["h0"], [f"g{i}"]) for i in range(gaps - 1)]
        outputs = [value(node.output[0], None, TensorProto.BOOL) for node in nodes[1:]]
        return model(nodes, outputs=outputs)

    few, many = by_provider(chain(10))["MIGraphX"], by_provider(chain(11))["MIGraphX"]
    assert (few.covered_nodes, few.fallback_operators) == (1, ["IsInf"])
    assert (many.covered_nodes, many.fallback_operators) == (0, ["IsInf", "Relu"])


def _function(name, nodes, inputs=("a",), outputs=("z",)):
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, list(inputs), list(outputs), nodes, imports)


def test_local_functions_count_by_their_bodies_at_each_call():
    body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("BitShift", ["b", "b"], ["z"], direction="LEFT")]
    nodes = [helper.make_node("F", ["x"], ["h"], domain="local"), helper.make_node("F", ["h"], ["y"], domain="local")]
    given = model(nodes, opsets=[("", 17), ("local", 1)], functions=[_function("F", body)])
    found = by_provider(given, {"h": 50, "y": 50})["CUDA"]
    assert (found.covered_nodes, found.total_nodes, found.fallback_operators) == (2, 4, ["BitShift"])
    assert found.fallback_flops_share == 0.5


def test_functions_that_call_functions_count_for_all_their_calls():
    functions = [_function("F0", [helper.make_node("Relu", ["a"], ["z"])])]
    for level in (1, 2, 3):
        names = ["a", "c1", "c2", "c3", "z"]
        calls = [helper.make_node(f"F{level - 1}", [names[i]], [names[i + 1]], domain="local") for i in range(4)]
        functions.append(_function(f"F{level}", calls))
    nodes = [helper.make_node("F3", ["x"], ["y"], domain="local")]
    given = model(nodes, [value("x", kind=TensorProto.INT32)], [value("y", kind=TensorProto.INT32)])
    given.functions.extend(functions)
    given.opset_import.append(helper.make_opsetid("local", 1))
    found = by_provider(given, {"y": 64})["CUDA"]
    assert (found.covered_nodes, found.total_nodes, found.fallback_operators) == (0, 64, ["Relu"])
    assert found.fallback_flops_share == 1.0


def test_operators_of_other_domains_are_named_with_them():
    given = one("BiasGelu", ["x", "bias"], initializers=[tensor("bias", 4)], domain="com.microsoft")
    found = fallbacks(given)
    assert found["CUDA"] == found["MIGraphX"] == []
    assert found["TensorRT"] == ["com.microsoft.BiasGelu"]


def test_the_operators_with_most_nodes_come_first_and_eight_are_named():
    operators = ["IsInf", "IsInf", "Det", "Det", "Det", "NonExisting"]
    nodes = [helper.make_node(name, ["x"], [f"y{i}"]) for i, name in enumerate(operators)]
    nodes += [helper.make_node(f"Custom{i}", ["x"], [f"c{i}"], domain="mine") for i in range(9)]
    given = model(nodes, outputs=[helper.make_empty_tensor_value_info("y0")], opsets=[("", 17), ("mine", 1)])
    found = {each.provider: each for each in coverage(given, {})}["TensorRT"]
    assert found.fallback_operators[:2] == ["Det", "NonExisting"]
    assert len(found.fallback_operators) == 8
    assert found.covered_nodes == 2


def test_the_cpu_computes_what_it_is_said_to():
    given = _choice()
    found = by_provider(given, {"d": 60, "a": 20, "b": 20, "y": 100}, cpu_supports=lambda node: node.op_type != "If")
    assert found["CPU"].fallback_operators == ["Det", "If", "ReduceMax", "Relu"]
    assert found["CPU"].covered_nodes == 1
    assert found["CPU"].fallback_flops_share == 0.5


def test_operators_that_only_have_a_definition_run_as_it_says():
    assert fallbacks(one("Mish", opset=18, out=TensorProto.FLOAT))["CUDA"] == []


def test_settings_of_operators_that_a_provider_refuses_fall_back():
    pool = helper.make_node("MaxPool", ["x"], ["y", "places"], kernel_shape=[2, 2])
    outputs = [value("y", None), value("places", None, TensorProto.INT64)]
    given = model([pool], [value("x", (1, 1, 4, 4))], outputs)
    assert fallbacks(given)["TensorRT"] == fallbacks(given)["MIGraphX"] == ["MaxPool"]
    assert fallbacks(given)["CUDA"] == []

    weights = [tensor("w", 1, 16, 3), tensor("r", 1, 16, 4)]
    for attributes, expected in (({}, []), ({"clip": 1.0}, ["LSTM"]), ({"input_forget": 1}, ["LSTM"])):
        given = one("LSTM", ["x", "w", "r"], initializers=weights, shape=(5, 1, 3), hidden_size=4, **attributes)
        assert fallbacks(given)["CUDA"] == expected, attributes

    weight = [tensor("w", 1, 1, 3, 3)]
    padding = [({"pads": [1, 1, 1, 1]}, True), ({"pads": [1, 0, 1, 1]}, False), ({"auto_pad": "SAME_UPPER"}, False)]
    for attributes, computed in padding:
        given = one("ConvTranspose", ["x", "w"], initializers=weight, shape=(1, 1, 5, 5), **attributes)
        assert fallbacks(given)["CUDA"] == ([] if computed else ["ConvTranspose"]), attributes
        assert fallbacks(given)["ROCm"] == []


def test_attributes_that_are_not_given_have_their_default():
    weights = [tensor("w", 1, 12, 3), tensor("r", 1, 12, 4)]
    for attributes, expected in (({}, ["GRU"]), ({"linear_before_reset": 1}, [])):
        given = one("GRU", ["x", "w", "r"], initializers=weights, shape=(5, 1, 3), hidden_size=4, **attributes)
        assert fallbacks(given)["CUDA"] == expected, attributes


def _use(node, opset=17, **types):
    kinds = {name: helper.make_tensor_type_proto(kind, shape) for name, (kind, shape) in types.items()}
    return Use(node, {"": opset}, kinds, lambda name: name == "known")


def _table(**options) -> ProviderTable:
    return ProviderTable(provider="CUDA", release="", source="", date="", approximate="", **options)


def test_a_kernel_serves_the_versions_that_it_names():
    kernels = KernelTable(types=["tensor(float)"], operators={"ai.onnx": {"Relu": ["6-12 T=0", "13 T=0"]}})
    support = Support(_table(kernels=kernels))
    node = helper.make_node("Relu", ["x"], ["y"])
    computed = [support.computes(_use(node, opset, x=(TensorProto.FLOAT, (1,)))) for opset in (6, 11, 13, 14, 17)]
    assert computed == [True, True, True, False, False]


def test_scalars_that_callers_give_fall_back_where_an_operator_takes_none():
    support = Support(_table(domains=[""], operators={"Add": 0, "Pow": 0}, types=[["float"]], scalars=["Add"]))
    scalar, row = (TensorProto.FLOAT, ()), (TensorProto.FLOAT, (3,))
    add, power = helper.make_node("Add", ["x", "s"], ["y"]), helper.make_node("Pow", ["x", "s"], ["y"])
    assert support.computes(_use(add, x=row, s=scalar))
    assert not support.computes(_use(power, x=row, s=scalar))
    assert support.computes(_use(power, x=row, s=row))
    known = helper.make_node("Pow", ["x", "known"], ["y"])
    assert support.computes(_use(known, x=row, known=scalar))


def test_types_that_are_unknown_are_taken_to_fit():
    support = Support(_table(domains=[""], operators={"Add": 0}, types=[["float"]]))
    node = helper.make_node("Add", ["x", "x"], ["y"])
    assert support.computes(_use(node))
    assert not support.computes(_use(node, y=(TensorProto.INT64, None)))


def test_ranks_and_types_of_the_first_input_can_be_asked_for():
    rule = Rule(ranks=[4], types=["float"])
    support = Support(_table(domains=[""], operators={"Relu": 0}, types=[["float", "double"]], rules={"Relu": rule}))
    node = helper.make_node("Relu", ["x"], ["y"])
    square, flat = (1, 1, 2, 2), (1, 4)
    assert support.computes(_use(node, x=(TensorProto.FLOAT, square)))
    assert not support.computes(_use(node, x=(TensorProto.FLOAT, flat)))
    assert not support.computes(_use(node, x=(TensorProto.DOUBLE, square)))
