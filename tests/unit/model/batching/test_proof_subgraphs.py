"""Branches, loops and functions: looked into, and proven where rows decide nothing in them."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.unit.model.batching.proofkit import (
    BOOL,
    FLOAT,
    INT64,
    SHAPE_OF,
    ZERO,
    Case,
    N,
    keep_apart,
    named,
    proof,
    reals,
)

test_of_these_graphs_it_is_proven_that_rows_keep_apart = keep_apart(
    Case(
        "a branch by a stored condition",
        N(
            "If",
            ["c"],
            ["b"],
            then_branch=helper.make_graph(
                [N("Identity", ["w"], ["o"])], "t", [], [helper.make_tensor_value_info("o", FLOAT, None)]
            ),
            else_branch=helper.make_graph(
                [N("Identity", ["w"], ["p"])], "e", [], [helper.make_tensor_value_info("p", FLOAT, None)]
            ),
        ),
        N("Relu", ["x"], ["y"]),
        stored={"c": np.bool_(True), "w": reals(4)},
    ),
)


def _branch(name: str, source: str) -> onnx.GraphProto:
    return helper.make_graph(
        [N("Identity", [source], [name])], name, [], [helper.make_tensor_value_info(name, FLOAT, None)]
    )


def _body(nodes: list[onnx.NodeProto], state: str = "s") -> onnx.GraphProto:
    inputs = [("i", INT64, []), ("c", BOOL, []), (state, FLOAT, None)]
    outputs = [("c_out", BOOL, []), ("s_out", FLOAT, None)]
    return helper.make_graph(
        [N("Identity", ["c"], ["c_out"]), *nodes],
        "body",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
    )


@named(
    [
        Case(
            "a condition of the rows",
            N("ReduceMax", ["x"], ["m"], keepdims=0),
            N("Greater", ["m", "t"], ["c"]),
            N("If", ["c"], ["y"], then_branch=_branch("a", "x"), else_branch=_branch("b", "x")),
            stored={"t": np.float32(3)},
        ),
        Case(
            "a condition of the number of rows",
            *SHAPE_OF,
            N("Equal", ["n", "one"], ["e"]),
            N("Squeeze", ["e"], ["c"]),
            N("If", ["c"], ["y"], then_branch=_branch("a", "x"), else_branch=_branch("b", "x")),
            stored=ZERO,
        ),
        Case(
            "rows in a loop",
            N("Loop", ["t", "c", "x"], ["y"], body=_body([N("Relu", ["s"], ["s_out"])])),
            stored={"t": np.int64(2), "c": np.bool_(True)},
        ),
        Case(
            "rows that a loop reads of the graph around it",
            N("Loop", ["t", "c", "w"], ["y"], body=_body([N("Add", ["s", "x"], ["s_out"])])),
            stored={"t": np.int64(2), "c": np.bool_(True), "w": np.float32(1)},
        ),
        Case(
            "as many turns as rows",
            *SHAPE_OF,
            N("Squeeze", ["n"], ["t"]),
            N("Loop", ["t", "c", "w"], ["l"], body=_body([N("Relu", ["s"], ["s_out"])])),
            N("Add", ["x", "l"], ["y"]),
            stored={**ZERO, "c": np.bool_(True), "w": np.float32(1)},
        ),
        Case(
            "random numbers in a loop",
            N("Loop", ["t", "c", "w"], ["l"], body=_body([N("RandomNormalLike", ["s"], ["s_out"])])),
            N("Add", ["x", "l"], ["y"]),
            stored={"t": np.int64(2), "c": np.bool_(True), "w": np.float32(1)},
        ),
    ]
)
def test_what_rows_decide_or_pass_through_is_not_proven(case: Case) -> None:
    assert not case.proof().holds


LATER = [N("ReduceMax", ["x"], ["v"], keepdims=0)]
"""ONNX Runtime takes nodes in any order."""


@named(
    [
        Case("read by a node", N("Add", ["x", "v"], ["y"]), *LATER),
        Case(
            "captured by a branch",
            N("If", ["c"], ["m"], then_branch=_branch("a", "v"), else_branch=_branch("b", "w")),
            N("Add", ["x", "m"], ["y"]),
            *LATER,
        ),
        Case(
            "given out by a branch",
            N(
                "If",
                ["c"],
                ["m"],
                then_branch=helper.make_graph([], "a", [], [helper.make_tensor_value_info("v", FLOAT, None)]),
                else_branch=_branch("b", "w"),
            ),
            N("Add", ["x", "m"], ["y"]),
            *LATER,
        ),
        Case(
            "captured by one branch, and made by the other under the same name",
            N("If", ["c"], ["m"], then_branch=_branch("a", "v"), else_branch=_branch("v", "w")),
            N("Add", ["x", "m"], ["y"]),
            *LATER,
        ),
        Case(
            "captured by a branch within a loop",
            N(
                "Loop",
                ["t", "c", "w"],
                ["m"],
                body=_body([N("If", ["c"], ["s_out"], then_branch=_branch("a", "v"), else_branch=_branch("b", "s"))]),
            ),
            N("Add", ["x", "m"], ["y"]),
            *LATER,
        ),
        Case("made twice", N("Identity", ["w"], ["v"]), N("Add", ["x", "v"], ["y"]), *LATER, outputs=("v",)),
    ]
)
def test_what_is_made_later_is_not_the_same_in_every_run(case: Case) -> None:
    stored = {"c": np.bool_(True), "w": np.float32(1), "t": np.int64(2)}
    found = proof(*case.nodes, stored=stored, **case.rest)

    assert not found.holds
    assert "make" in found.reason


def test_a_subgraph_may_read_what_it_and_those_around_it_make() -> None:
    inner = N("If", ["c"], ["s_out"], then_branch=_branch("a", "s"), else_branch=_branch("b", "w"))
    loop = N("Loop", ["t", "c", "w"], ["m"], body=_body([inner]))
    stored = {"c": np.bool_(True), "w": np.float32(1), "t": np.int64(2)}
    assert proof(loop, N("Relu", ["x"], ["y"]), stored=stored).holds


def test_a_function_that_has_the_name_of_an_operator_may_draw_random_numbers_in_a_branch() -> None:
    body = [N("RandomUniformLike", ["a"], ["b"])]
    function = helper.make_function("", "Twin", ["a"], ["b"], body, [helper.make_opsetid("", 21)])
    branch = helper.make_graph([N("Twin", ["w"], ["a"])], "t", [], [helper.make_tensor_value_info("a", FLOAT, None)])
    nodes = [N("If", ["c"], ["m"], then_branch=branch, else_branch=_branch("b", "w")), N("Sum", ["x", "m"], ["y"])]
    stored = {"c": np.bool_(True), "w": reals(1)}
    assert not proof(*nodes, stored=stored, functions=[function]).holds


def test_what_a_function_takes_counts_with_every_call() -> None:
    """So that calls of one with very many inputs do not keep an operator busy."""
    inputs = [f"a{i}" for i in range(50_000)]
    opset = [helper.make_opsetid("", 21)]
    wide = helper.make_function("local", "F", inputs, ["o"], [N("Identity", ["a0"], ["o"])], opset)
    calls = [N("F", ["x" if i == 0 else f"v{i}"], [f"v{i + 1}"], domain="local") for i in range(5)]
    found = proof(*calls, N("Identity", ["v5"], ["y"]), functions=[wide])
    assert "more nodes than are looked at" in found.reason


def test_functions_of_the_model_are_looked_into() -> None:
    def function(axis: int) -> onnx.FunctionProto:
        node = N("Softmax", ["a"], ["b"], axis=axis)
        return helper.make_function("local", "F", ["a"], ["b"], [node], [helper.make_opsetid("", 21)])

    call = N("F", ["x"], ["y"], domain="local")

    assert proof(call, functions=[function(1)]).holds
    assert not proof(call, functions=[function(0)]).holds


def test_attributes_that_a_call_gives_to_a_function_count() -> None:
    node = N("Softmax", ["a"], ["b"])
    node.attribute.append(onnx.AttributeProto(name="axis", ref_attr_name="over", type=onnx.AttributeProto.INT))
    function = helper.make_function("local", "F", ["a"], ["b"], [node], [helper.make_opsetid("", 21)], ["over"])

    assert proof(N("F", ["x"], ["y"], domain="local", over=1), functions=[function]).holds
    assert not proof(N("F", ["x"], ["y"], domain="local", over=0), functions=[function]).holds
    assert proof(N("F", ["x"], ["y"], domain="local"), functions=[function]).holds, "the operator's own default"


def test_functions_that_call_each_other_again_and_again_end() -> None:
    opset = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    functions = [
        helper.make_function(
            "local",
            f"F{i}",
            ["a"],
            ["c"],
            [N(f"F{i + 1}", ["a"], ["b"], domain="local"), N(f"F{i + 1}", ["b"], ["c"], domain="local")],
            opset,
        )
        for i in range(14)
    ]
    functions.append(helper.make_function("local", "F14", ["a"], ["b"], [N("Relu", ["a"], ["b"])], opset))

    assert proof(N("F0", ["x"], ["y"], domain="local"), functions=functions) is not None
    itself = helper.make_function("local", "F", ["a"], ["b"], [N("F", ["a"], ["b"], domain="local")], opset)
    assert not proof(N("F", ["x"], ["y"], domain="local"), functions=[itself]).holds


def test_double_precision_is_seen_where_a_function_hands_on_the_type() -> None:
    cast = N("Cast", ["x"], ["d"])
    cast.attribute.append(onnx.AttributeProto(name="to", type=onnx.AttributeProto.INT, ref_attr_name="kind"))
    body = [cast, N("Sigmoid", ["d"], ["y"])]
    function = helper.make_function("local", "F", ["x"], ["y"], body, [helper.make_opsetid("", 21)], ["kind"])
    single = proof(N("F", ["x"], ["y"], domain="local", kind=FLOAT), functions=[function])
    double = proof(N("F", ["x"], ["y"], domain="local", kind=TensorProto.DOUBLE), functions=[function])
    assert single.strength == "Exact"
    assert double.strength != "Exact"
