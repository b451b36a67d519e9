"""A graph that only trains a model is refused as that."""

import pytest
from modelkit import model, value
from onnx import helper

from onnx_operator.model.checks.training import training_only


def relu(**options):
    return model([helper.make_node("Relu", ["x"], ["y"])], **options)


def test_a_model_with_training_information_beside_a_usable_graph_is_scored():
    trained = relu()
    trained.training_info.add().algorithm.node.add(op_type="Gradient", domain="ai.onnx.preview.training")
    assert training_only(trained) == ""
    assert training_only(relu()) == ""


def test_a_model_of_training_graphs_alone_is_named():
    only = relu()
    del only.graph.node[:]
    only.training_info.add().algorithm.node.add(op_type="Relu")
    assert "training_info" in training_only(only)


@pytest.mark.parametrize(
    ("domain", "operator"),
    [
        ("ai.onnx.preview.training", "Adam"),
        ("com.microsoft", "SoftmaxCrossEntropyLossGrad"),
        ("com.microsoft", "InPlaceAccumulatorV2"),
    ],
)
def test_operators_of_training_are_named_with_their_node(domain, operator):
    node = helper.make_node(operator, ["x"], ["y"], name="step", domain=domain)
    said = training_only(model([node]))
    assert "step" in said
    assert f"{domain}.{operator}" in said


def test_operators_of_training_are_found_in_subgraphs_and_functions():
    inner = helper.make_graph(
        [helper.make_node("AdamWOptimizer", ["x"], ["z"], domain="com.microsoft")], "then", [], [value("z")]
    )
    branch = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    assert "AdamWOptimizer" in training_only(model([branch]))
    function = helper.make_function(
        "local", "Step", ["a"], ["b"], [helper.make_node("ReluGrad", ["a", "a"], ["b"], domain="com.microsoft")], []
    )
    assert "ReluGrad" in training_only(model([helper.make_node("Relu", ["x"], ["y"])], functions=[function]))


def test_an_operator_of_someone_else_that_ends_alike_is_scored():
    assert training_only(model([helper.make_node("MyGrad", ["x"], ["y"], domain="my.company")])) == ""
