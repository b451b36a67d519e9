"""Estimates against what was measured with ONNX Runtime 1.32 on one core: the peak of loading and three runs."""

import numpy as np
import pytest
from modelkit import linear, model, tensor, value, verdict
from onnx import TensorProto, helper, numpy_helper
from test_model_judge import LIGHT

MIB = 1 << 20
MEASURED_PEAK_MIB = {
    "light_bvlc_alexnet": 439,
    "light_densenet121": 144,
    "light_inception_v1": 114,
    "light_inception_v2": 170,
    "light_resnet50": 317,
    "light_shufflenet": 72,
    "light_squeezenet": 68,
    "light_vgg19": 949,
    "light_zfnet512": 666,
}
node = helper.make_node


def memory(m):
    report = verdict(m).report
    assert report is not None
    return report.memory


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_never_far_under_nor_wildly_over(path) -> None:
    estimate = memory(path.read_bytes()).resident_bytes / MIB
    measured = MEASURED_PEAK_MIB[path.stem]
    assert measured < estimate < 160 + 2 * measured


def test_weights_count_twice_while_loading() -> None:
    small, large = memory(linear(16)), memory(linear(1024))
    assert large.weights_bytes == 4 * MIB
    assert large.resident_bytes - small.resident_bytes >= 8 * MIB - 16 * 1024


def test_values_that_live_at_the_same_time_count_together() -> None:
    shape = (256, 1024)
    chain = [node("Relu", ["x" if i == 0 else f"h{i}"], [f"h{i + 1}"]) for i in range(9)]
    last = [node("Relu", ["h9"], ["y"])]
    in_turn = memory(model(chain + last, [value("x", shape)], [value("y", shape)]))
    kept = memory(
        model([*chain, node("Sum", [f"h{i}" for i in range(1, 10)], ["y"])], [value("x", shape)], [value("y", shape)])
    )
    assert in_turn.activations_bytes <= 3 * MIB
    assert kept.activations_bytes >= 10 * MIB


def test_what_is_computed_once_stays_for_good() -> None:
    size = numpy_helper.from_array(np.array([512, 1024], np.int64), "size")
    m = model(
        [node("ConstantOfShape", ["size"], ["c"]), node("Exp", ["c"], ["e"]), node("Add", ["x", "e"], ["y"])],
        inputs=[value("x", (1,))],
        outputs=[value("y", (512, 1024))],
        initializers=[size],
    )
    assert memory(m).weights_bytes >= 2 * MIB


def test_open_dimensions_count_as_one() -> None:
    fixed = memory(model([node("Relu", ["x"], ["y"])], [value("x", (1, 1000))], [value("y", (1, 1000))]))
    free = memory(model([node("Relu", ["x"], ["y"])], [value("x", ("N", 1000))], [value("y", ("N", 1000))]))
    assert fixed == free


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
    assert estimate.weights_bytes >= 2 * MIB
    assert estimate.activations_bytes >= 6 * MIB


def test_absurd_sizes_do_not_overflow() -> None:
    m = model([node("Relu", ["x"], ["y"])], [value("x", (2**40, 2**40))], [value("y", (2**40, 2**40))])
    assert memory(m).resident_bytes < 2**63
