"""Nodes that the CPU does not compute are refused before a pod is: each case is held against the real runtime."""

from functools import cache

import numpy as np
import onnx
import pytest
from modelkit import model, tensor, value
from onnx import TensorProto, helper, numpy_helper
from runtimekit import loads, opened

from onnx_operator.api.capabilities import Capabilities, load_capabilities
from onnx_operator.model.checks.kernels import check_kernels
from onnx_operator.model.checks.structure import check_formally, check_structure
from onnx_operator.model.checks.versions import check_versions
from onnx_operator.model.refusal import RefusedError

node = helper.make_node
FLOAT, HALF, BFLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE
INT4, INT64, BOOL = TensorProto.INT4, TensorProto.INT64, TensorProto.BOOL
MICROSOFT = "com.microsoft"
NAMES = {kind: name.lower() for name, kind in TensorProto.DataType.items()}


@cache
def bundled() -> Capabilities:
    return load_capabilities()


def refusal(made: onnx.ModelProto, capabilities: Capabilities | None = None) -> str:
    """Why the structure is refused, by the checks alone; empty where it is not."""
    copy = onnx.load_from_string(made.SerializeToString())
    capabilities = capabilities or bundled()
    try:
        check_versions(copy, capabilities)
        check_structure(copy)
        check_kernels(check_formally(copy), capabilities)
    except RefusedError as refused:
        return f"{refused.refusal.reason}: {refused.refusal.message}"
    return ""


def agree(made: onnx.ModelProto, *, on: bool, words: tuple[str, ...] = ()) -> None:
    """The runtime loads the model or not, and the verdict is the same; a refusal says ``words``."""
    assert loads(made) is on, opened(made)
    found = refusal(made)
    assert (found == "") is on, found
    for each in words:
        assert each in found, found


def unary(operator: str, kind: int, opset: int = 17, domain: str = "", **attributes) -> onnx.ModelProto:
    return model(
        [node(operator, ["x"], ["y"], name="it", domain=domain, **attributes)],
        inputs=[value("x", (2, 4), kind)],
        outputs=[value("y", (2, 4), kind)],
        opsets=[("", opset), *([(domain, 1)] if domain else [])],
        ir_version=8 if opset < 21 else 10,
    )


def wired(nodes, kind=FLOAT, *, out=None, extra=(), **more) -> onnx.ModelProto:
    return model(nodes, inputs=[value("x", (2, 4), kind), *extra], outputs=[value("y", (2, 4), out or kind)], **more)


@pytest.mark.parametrize(
    ("operator", "kind", "on"),
    [
        ("Relu", FLOAT, True),
        ("Relu", INT64, False),
        ("Relu", BFLOAT, False),
        ("Erf", DOUBLE, False),
        ("Erf", HALF, True),
        ("Neg", INT64, True),
    ],
    ids=lambda each: NAMES.get(each, each) if isinstance(each, int) and not isinstance(each, bool) else str(each),
)
def test_an_operator_needs_a_kernel_at_its_type(operator: str, kind: int, on: bool) -> None:
    agree(unary(operator, kind), on=on, words=() if on else ("UnknownOperator", operator, f"tensor({NAMES[kind]})"))


def test_the_refusal_names_node_operator_opset_types_and_what_to_do() -> None:
    agree(
        unary("Relu", INT64),
        on=False,
        words=(
            'node "it" (Relu)',
            "T: tensor(int64)",
            "opset 17 of ai.onnx",
            "T: tensor(double|float|int32|int8)",
            "ONNX Runtime 1.32.0",
            "Cast",
        ),
    )


def test_float16_is_computed_in_float32_where_inputs_are_float16() -> None:
    agree(wired([node("Add", ["x", "x"], ["y"])], HALF), on=True)
    agree(wired([node("EyeLike", ["x"], ["y"], dtype=HALF)], HALF), on=True)


def test_float16_that_an_operator_makes_from_other_types_is_not() -> None:
    agree(wired([node("EyeLike", ["x"], ["y"], dtype=HALF)], FLOAT, out=HALF), on=False, words=("T2: tensor(float16)",))
    made = model([node("RandomNormal", [], ["y"], dtype=HALF, shape=[2, 4])], [], [value("y", (2, 4), HALF)])
    agree(made, on=False, words=("RandomNormal", "tensor(float16)"))
    agree(wired([node("RandomNormalLike", ["x"], ["y"], dtype=BFLOAT)], HALF, out=BFLOAT), on=False)


@pytest.mark.parametrize("opset", [1, 6, 7, 13, 17, 22, 28])
def test_old_versions_of_an_operator_have_no_kernels(opset: int) -> None:
    made = wired([node("Mul", ["x", "x"], ["y"])], opsets=[("", opset)], ir_version=10)
    agree(made, on=opset >= 7, words=() if opset >= 7 else (f"opset {opset}", "opset 7 or newer"))


def test_versions_newer_than_the_kernels_are_refused_too() -> None:
    nodes = [node("DequantizeLinear", ["x", "s"], ["y"])]
    for opset, on in ((24, True), (28, False)):
        made = wired(nodes, TensorProto.UINT8, out=FLOAT, extra=[value("s", ())], opsets=[("", opset)], ir_version=10)
        agree(made, on=on, words=() if on else ("an opset older than 28",))


@pytest.mark.parametrize(
    ("operator", "kind", "opset", "on"),
    [
        ("Gelu", FLOAT, 20, True),
        ("Gelu", HALF, 20, True),
        ("Gelu", BFLOAT, 20, False),
        ("Gelu", DOUBLE, 20, False),
        ("Swish", FLOAT, 24, True),
        ("Swish", FLOAT, 28, False),
        ("Bernoulli", FLOAT, 17, True),
        ("Bernoulli", FLOAT, 22, False),
        ("Celu", FLOAT, 17, True),
        ("HardSwish", DOUBLE, 17, False),
        ("HardSwish", BFLOAT, 22, False),
    ],
)
def test_an_operator_without_a_kernel_is_judged_by_those_that_define_it(
    operator: str, kind: int, opset: int, on: bool
) -> None:
    agree(unary(operator, kind, opset), on=on)


def test_the_refusal_names_the_operator_within() -> None:
    agree(unary("Bernoulli", FLOAT, 22), on=False, words=("RandomUniformLike", "Bernoulli", "computed through"))


@pytest.mark.parametrize("kind", [FLOAT, INT64, BFLOAT, HALF, DOUBLE])
def test_bodies_of_loops_are_judged_at_the_types_that_they_are_given(kind: int) -> None:
    body = helper.make_graph(
        [node("Relu", ["carried"], ["next"]), node("Identity", ["go_on"], ["go"])],
        "body",
        [value("i", (), INT64), value("go_on", (), BOOL), onnx.ValueInfoProto(name="carried")],
        [value("go", (), BOOL), onnx.ValueInfoProto(name="next")],
    )
    made = wired([node("Loop", ["m", "", "x"], ["y"], body=body)], kind, extra=[value("m", (), INT64)])
    agree(made, on=kind not in (INT64, BFLOAT))


def branches(then: str, other: str, kind: int = INT64) -> dict[str, onnx.GraphProto]:
    return {
        name: helper.make_graph([node(operator, ["x"], [name[0]])], name, [], [value(name[0], (2, 4), kind)])
        for name, operator in (("then_branch", then), ("else_branch", other))
    }


def test_both_branches_count_where_a_caller_decides() -> None:
    condition = [value("c", (), BOOL)]
    agree(wired([node("If", ["c"], ["y"], **branches("Abs", "Relu"))], INT64, extra=condition), on=False)
    agree(wired([node("If", ["c"], ["y"], **branches("Abs", "Neg"))], INT64, extra=condition), on=True)


@pytest.mark.parametrize("truth", [True, False])
def test_only_the_branch_that_is_taken_counts_where_a_constant_decides(truth: bool) -> None:
    condition = numpy_helper.from_array(np.array(truth), "c")
    stored = wired([node("If", ["c"], ["y"], **branches("Abs", "Relu"))], INT64, initializers=[condition])
    agree(stored, on=truth)
    constant = node("Constant", [], ["c"], value=condition)
    agree(wired([constant, node("If", ["c"], ["y"], **branches("Abs", "Relu"))], INT64), on=truth)


def test_an_initializer_that_is_an_input_too_decides_nothing() -> None:
    condition = numpy_helper.from_array(np.array(True), "c")
    nodes = [node("If", ["c"], ["y"], **branches("Abs", "Relu"))]
    agree(wired(nodes, INT64, extra=[value("c", (), BOOL)], initializers=[condition]), on=False)


def test_a_condition_that_loading_computes_refuses_only_where_no_branch_runs() -> None:
    condition = numpy_helper.from_array(np.array(False), "c")
    negated = node("Not", ["c"], ["d"])
    fine = wired([negated, node("If", ["d"], ["y"], **branches("Abs", "Relu"))], INT64, initializers=[condition])
    agree(fine, on=True)
    bad = wired([negated, node("If", ["d"], ["y"], **branches("Relu", "Relu"))], INT64, initializers=[condition])
    agree(bad, on=False)


def called(*body: onnx.NodeProto, kind: int = FLOAT, opset: int = 17, function_opset: int = 17, **attributes):
    imports = [helper.make_opsetid("", function_opset), helper.make_opsetid(MICROSOFT, 1)]
    function = helper.make_function("my.own", "It", ["a"], ["b"], list(body), imports, sorted(attributes))
    return wired(
        [node("It", ["x"], ["y"], name="call", domain="my.own", **attributes)],
        kind,
        opsets=[("", opset), ("my.own", 1)],
        functions=[function],
    )


@pytest.mark.parametrize(("kind", "on"), [(FLOAT, True), (HALF, True), (BFLOAT, False), (INT64, True)])
def test_local_functions_are_judged_at_the_types_of_their_calls(kind: int, on: bool) -> None:
    made = called(node("Add", ["a", "a"], ["b"], name="inner"), kind=kind)
    agree(made, on=on, words=() if on else ('node "inner" (Add)', 'node "call" (my.own.It)'))


def test_local_functions_are_judged_by_the_opset_of_the_model() -> None:
    bernoulli = node("Bernoulli", ["a"], ["b"])
    agree(called(bernoulli, opset=17, function_opset=22), on=True)
    agree(called(bernoulli, opset=22, function_opset=17), on=False, words=("RandomUniformLike", "opset 22"))
    agree(called(node("Gelu", ["a"], ["b"]), opset=17, function_opset=20), on=False, words=("opset 17",))


def test_attributes_of_calls_reach_the_nodes_within() -> None:
    for kind, on in ((DOUBLE, True), (BFLOAT, True), (TensorProto.FLOAT4E2M1, False)):
        cast = node("Cast", ["a"], ["b"])
        cast.attribute.add(name="to", ref_attr_name="kind", type=onnx.AttributeProto.INT)
        made = called(cast, kind=kind)
        made.graph.input[0].CopyFrom(value("x", (2, 4), FLOAT))
        made.functions[0].attribute.append("kind")
        made.graph.node[0].attribute.append(helper.make_attribute("kind", kind))
        agree(made, on=on)


def test_functions_that_nothing_calls_do_not_count() -> None:
    function = helper.make_function(
        "my.own", "It", ["a"], ["b"], [node("Nope", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    agree(wired([node("Relu", ["x"], ["y"])], functions=[function], opsets=[("", 17), ("my.own", 1)]), on=True)


def test_functions_within_functions_are_found_without_end() -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my.own", 1)]
    functions = [helper.make_function("my.own", "F0", ["a"], ["b"], [node("Relu", ["a"], ["b"])], imports)]
    for depth in range(1, 9):
        inner = f"F{depth - 1}"
        body = [node(inner, ["a"], ["t"], domain="my.own"), node(inner, ["t"], ["b"], domain="my.own")]
        functions.append(helper.make_function("my.own", f"F{depth}", ["a"], ["b"], body, imports))
    for kind, on in ((FLOAT, True), (INT64, False)):
        call = node("F8", ["x"], ["y"], domain="my.own")
        agree(wired([call], kind, functions=functions, opsets=[("", 17), ("my.own", 1)]), on=on)


@pytest.mark.parametrize(
    ("operator", "kind", "on"),
    [
        ("Gelu", FLOAT, True),
        ("Gelu", HALF, True),
        ("Gelu", DOUBLE, False),
        ("Gelu", BFLOAT, False),
        ("FastGelu", DOUBLE, True),
        ("QuickGelu", DOUBLE, True),
        ("QuickGelu", BFLOAT, False),
        ("Inverse", DOUBLE, True),
        ("Inverse", INT64, False),
    ],
)
def test_operators_of_the_runtime_itself_are_judged_at_their_types(operator: str, kind: int, on: bool) -> None:
    made = unary(operator, kind, domain=MICROSOFT)
    made.graph.input[0].CopyFrom(value("x", (4, 4), kind))
    made.graph.output[0].CopyFrom(value("y", (4, 4), kind))
    agree(made, on=on)


def test_types_pass_through_operators_of_the_runtime_itself() -> None:
    def then_erf(kind: int) -> onnx.ModelProto:
        product = node("FusedMatMul", ["x", "x"], ["h"], domain=MICROSOFT, transB=1)
        made = wired([product, node("Erf", ["h"], ["y"])], kind, opsets=[("", 17), (MICROSOFT, 1)])
        made.graph.output[0].CopyFrom(value("y", (2, 2), kind))
        return made

    agree(then_erf(FLOAT), on=True)
    agree(then_erf(DOUBLE), on=False, words=("Erf", "tensor(double)"))


@pytest.mark.parametrize("opset", [13, 16, 17, 21])
@pytest.mark.parametrize("operator", ["SimplifiedLayerNormalization", "LayerNormalization"])
def test_normalization_that_exporters_put_in_the_standard_domain_is_known(operator: str, opset: int) -> None:
    nodes = [node(operator, ["x", "scale"], ["h"], axis=-1), node("Relu", ["h"], ["y"])]
    made = wired(nodes, initializers=[tensor("scale", 4)], opsets=[("", opset)], ir_version=8)
    agree(made, on=True)


@pytest.mark.parametrize(("opset", "on"), [(7, True), (9, True), (10, False)])
def test_experimental_operators_live_until_the_opset_that_removed_them(opset: int, on: bool) -> None:
    agree(unary("Affine", FLOAT, opset, alpha=1.0, beta=0.0), on=on)


def test_a_domain_that_the_model_does_not_import_has_its_newest_version() -> None:
    agree(wired([node("Relu", ["x"], ["y"])], opsets=[("ai.onnx.ml", 3)]), on=True)
    scaler = node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[1.0])
    agree(wired([scaler]), on=True)
    old = node("ReduceSum", ["x"], ["y"], axes=[1])
    agree(wired([old], opsets=[("ai.onnx.ml", 3)]), on=False)


def test_nodes_that_only_pass_a_value_on_need_no_kernel() -> None:
    there, back = node("Cast", ["x"], ["a"], to=INT4), node("Cast", ["b"], ["y"], to=FLOAT)
    newest = {"opsets": [("", 24)], "ir_version": 11}
    agree(wired([there, node("Identity", ["a"], ["b"]), back], **newest), on=True)
    agree(wired([there, node("Identity", ["a"], ["y"])], out=INT4, **newest), on=True)
    agree(wired([node("Identity", ["x"], ["y"])], INT4, **newest), on=False)
    agree(wired([there, node("Flatten", ["a"], ["b"]), back], **newest), on=False)
    brain = node("Cast", ["x"], ["a"], to=BFLOAT)
    agree(wired([brain, node("Dropout", ["a"], ["b"]), back]), on=True)
    agree(wired([brain, node("Dropout", ["a"], ["y"])], out=BFLOAT), on=False)


def test_a_node_that_nothing_reads_counts_too() -> None:
    agree(wired([node("Identity", ["x"], ["y"]), node("Relu", ["x"], ["unread"])], INT64), on=False)


def test_a_batch_first_recurrent_layer_is_refused() -> None:
    def recurrent(layout: int) -> onnx.ModelProto:
        inputs = [value("x", (2, 3, 4))]
        weights = [tensor("w", 1, 20, 4), tensor("r", 1, 20, 5)]
        made = node("LSTM", ["x", "w", "r"], ["y"], hidden_size=5, layout=layout)
        return model([made], inputs, [value("y", (2, 3, 1, 5) if layout else (2, 1, 3, 5))], weights)

    agree(recurrent(0), on=True)
    agree(recurrent(1), on=False, words=("LSTM", "layout=1", "transpose"))


def test_types_that_only_custom_operators_know_are_not_judged() -> None:
    made = wired([node("Mystery", ["x"], ["h"], domain="no.such"), node("Erf", ["h"], ["y"])], DOUBLE)
    made.opset_import.append(helper.make_opsetid("no.such", 1))
    assert "no.such" in refusal(made)
    capabilities = bundled().model_copy(update={"operators": {"no.such": ["Mystery"]}})
    assert refusal(made, capabilities) == ""
    made.graph.value_info.append(value("h", (2, 4), DOUBLE))
    assert "tensor(double)" in refusal(made, capabilities)


def test_capabilities_without_kernels_judge_no_types() -> None:
    text = '{"onnxRuntimeVersion": "1.32.0", "irVersion": 14, "opsets": {"ai.onnx": 28}, "operators": {}}'
    older = Capabilities.model_validate_json(text)
    made = unary("Relu", INT64)
    assert refusal(made) != ""
    assert refusal(made, older) == ""
