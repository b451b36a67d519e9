"""How many nodes a model comes to, before anything walks through them."""

import onnx
import pytest
from modelkit import model, value
from onnx import helper

from onnx_operator.model.checks.size import check_size
from onnx_operator.model.refusal import RefusedError

OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("d", 1)]


def function(name: str, calls: list[str], domain: str = "d") -> onnx.FunctionProto:
    nodes = []
    for n, each in enumerate(calls):
        names = [f"t{n}" if n else "a"], ["b" if n == len(calls) - 1 else f"t{n + 1}"]
        nodes.append(helper.make_node(each, *names, domain="" if each == "Relu" else "d"))
    return helper.make_function(domain, name, ["a"], ["b"], nodes, OPSETS)


def calling(*names: str, functions: list[onnx.FunctionProto]) -> onnx.ModelProto:
    nodes = [helper.make_node(name, ["x"], [f"y{n}"], domain="d") for n, name in enumerate(names)]
    made = model(nodes, [value("x")], [value("y0")])
    made.functions.extend(functions)
    made.opset_import.add(domain="d", version=1)
    return made


def refusal(made: onnx.ModelProto, most: int = 1000) -> tuple[str, str]:
    with pytest.raises(RefusedError) as caught:
        check_size(made, most)
    return caught.value.refusal.reason, caught.value.refusal.message


def test_nodes_of_functions_count_at_each_call() -> None:
    functions = [function("Inner", ["Relu"] * 10), function("Outer", ["Inner"] * 9)]
    made = calling("Outer", "Outer", functions=functions)
    # 2 calls, in each 9 calls, in each of these 10 nodes.
    check_size(made, 2 + 2 * 9 + 2 * 9 * 10)
    reason, message = refusal(made, 2 + 2 * 9 + 2 * 9 * 10 - 1)
    assert reason == "TooLarge"
    for named in ("200 nodes", "inspection.maxNodes allows 199", "d.Inner", "18 times"):
        assert named in message


def test_nodes_of_branches_count() -> None:
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["o"])] * 50, "b", [], [value("o")])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    made = model([node], [value("x")], [value("y")])
    check_size(made, 101)
    assert "101 nodes" in refusal(made, 100)[1]


@pytest.mark.parametrize("depth", [20, 64, 3000])
def test_functions_that_double_are_counted_in_time_that_does_not(depth: int) -> None:
    functions = [function("F0", ["Relu"])]
    functions += [function(f"F{n}", [f"F{n - 1}"] * 2) for n in range(1, depth)]
    reason, message = refusal(calling(f"F{depth - 1}", functions=functions), 200_000)
    assert reason == "TooLarge"
    assert "functions" in message


def test_every_function_that_calls_all_before_it_is_counted_once() -> None:
    functions = [function("F0", ["Relu"])]
    functions += [function(f"F{n}", [f"F{m}" for m in range(n)]) for n in range(1, 150)]
    assert refusal(calling("F149", functions=functions), 200_000)[0] == "TooLarge"


def test_a_function_that_calls_itself_is_refused_where_it_is_called() -> None:
    circle = [function("F", ["G"]), function("G", ["Relu", "F"])]
    reason, message = refusal(calling("F", functions=circle))
    assert reason == "InvalidGraph"
    assert "circle" in message
    check_size(calling("Other", functions=[*circle, function("Other", ["Relu"])]), 1000)


def test_a_function_with_the_name_of_a_standard_operator_is_never_called() -> None:
    named = helper.make_function("", "Relu", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], OPSETS)
    made = model([helper.make_node("Relu", ["x"], ["y"])], [value("x")], [value("y")])
    made.functions.append(named)
    check_size(made, 1)
