"""Trees, linear models and features of ai.onnx.ml."""

from typing import Any

import onnx
import pytest
from onnx import TensorProto

from onnx_operator.model.batching.kernels import Kernels
from onnx_operator.model.batching.proof import Proof
from tests.unit.model.batching.proofkit import FLOAT, INT64, Case, N, X, ints, meet, proof

test_of_these_graphs_nothing_is_proven_and_the_reason_is_told = meet(
    Case(
        "features of the batch as one row",
        N("ArrayFeatureExtractor", ["x", "i"], ["y"], domain="ai.onnx.ml"),
        inputs={"x": (FLOAT, ["N"])},
        stored={"i": ints(0)},
    ),
    Case(
        "features by indices of a caller",
        N("ArrayFeatureExtractor", ["x", "i"], ["y"], domain="ai.onnx.ml"),
        inputs={**X, "i": (INT64, ["N"])},
    ),
    Case("words of all rows", N("StringNormalizer", ["x"], ["y"]), inputs={"x": (TensorProto.STRING, ["N"])}),
)


JUMPING: list[tuple[str, dict[str, Any]]] = [
    ("SVMRegressor", {"one_class": 1}),
    ("SVMRegressor", {"post_transform": "PROBIT"}),
    ("LinearRegressor", {"post_transform": "SOFTMAX_ZERO"}),
    ("LinearClassifier", {"post_transform": "PROBIT"}),
]


@pytest.mark.parametrize(("operator", "attributes"), JUMPING)
def test_what_jumps_within_a_model_of_rounded_sums_is_not_proven(operator: str, attributes: dict[str, Any]) -> None:
    outputs = ["l", "y"] if operator.endswith("Classifier") else ["y"]

    def of(attributes: dict[str, Any]) -> Proof:
        return proof(N(operator, ["x"], outputs, domain="ai.onnx.ml", coefficients=[1.0] * 4, **attributes))

    assert not of(attributes).holds
    assert of({}).strength == "Tolerant"


def test_many_trees_are_summed_in_another_order_for_many_rows_so_that_no_label_is_proven_of_them() -> None:
    def trees(count: int) -> onnx.NodeProto:
        return N("TreeEnsembleClassifier", ["x"], ["y", "p"], domain="ai.onnx.ml", nodes_treeids=list(range(count)))

    assert proof(trees(10)).strength == "Exact"
    assert proof(trees(300), outputs=("p",)).strength == "Tolerant"
    assert not proof(trees(300), outputs=("y",)).holds


def test_labels_of_linear_models_are_not_proven_as_their_scores_are_rounded_by_the_number_of_rows() -> None:
    scores = {"coefficients": [1.0] * 8, "intercepts": [0.0, 1.0]}
    model_of_two = N("LinearClassifier", ["x"], ["l", "y"], domain="ai.onnx.ml", classlabels_ints=[0, 1], **scores)
    regressor = N("LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", targets=2, **scores)
    assert proof(model_of_two).strength == "Tolerant"
    assert not proof(model_of_two, outputs=("l",)).holds
    assert proof(regressor).strength == "Tolerant"


def test_the_sum_of_trees_holds_to_the_bit_for_as_many_rows_as_are_summed_alike() -> None:
    stumps = range(10)
    trees = N(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        nodes_treeids=list(stumps),
        nodes_nodeids=[0 for _ in stumps],
        nodes_modes=["LEAF" for _ in stumps],
        n_targets=1,
    )
    assert proof(trees).strength == "Exact"
    assert proof(trees, kernels=Kernels(measured=True, most_rows=64)).strength == "Tolerant"
