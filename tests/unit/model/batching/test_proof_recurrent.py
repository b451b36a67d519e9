"""Recurrent nets: rows are the batch, never the sequence."""

from onnx import TensorProto

from onnx_operator.model.batching.proof import Proof
from tests.unit.model.batching.proofkit import SHAPE_OF, WORDS, ZERO, Case, N, ints, keep_apart, meet, proof, reals

test_of_these_graphs_it_is_proven_that_rows_keep_apart = keep_apart(
    Case(
        "a recurrent net with the batch at axis 1",
        N("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        N("LSTM", ["t", "w", "r"], ["", "h"], hidden_size=3),
        N("Squeeze", ["h", "zero"], ["y"]),
        inputs=WORDS,
        stored={**ZERO, "w": reals(1, 12, 4), "r": reals(1, 12, 3)},
    ),
    Case(
        "a state of zeros for each row",
        *SHAPE_OF,
        N("Concat", ["one", "n", "hidden"], ["to"], axis=0),
        N("ConstantOfShape", ["to"], ["h0"]),
        N("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        N("GRU", ["t", "w", "r", "", "", "h0"], ["", "h"], hidden_size=3),
        N("Squeeze", ["h", "zero"], ["y"]),
        inputs=WORDS,
        stored={**ZERO, "hidden": ints(3), "w": reals(1, 9, 4), "r": reals(1, 9, 3)},
    ),
)


test_of_these_graphs_nothing_is_proven_and_the_reason_is_told = meet(
    Case(
        "rows as a sequence",
        N("LSTM", ["x", "w", "r"], ["s"], hidden_size=3),
        N("Squeeze", ["s", "one"], ["y"]),
        inputs=WORDS,
        stored={**ZERO, "w": reals(1, 12, 4), "r": reals(1, 12, 3)},
    ),
    Case(
        "sequences by the layout of batches",
        N("LSTM", ["x", "w", "r"], ["s"], hidden_size=3, layout=1),
        N("Squeeze", ["s", "one"], ["y"]),
        inputs=WORDS,
        stored={**ZERO, "w": reals(1, 12, 4), "r": reals(1, 12, 3)},
    ),
    *(
        Case(
            name,
            N("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
            N("GRU", ["t", "w", "r", "", lengths, state], ["", "h"], hidden_size=3),
            N("Squeeze", ["h", "zero"], ["y"]),
            inputs={**WORDS, "l": (TensorProto.INT32, ["N"])},
            stored={**ZERO, "w": reals(1, 9, 4), "r": reals(1, 9, 3), "h0": reals(1, 1, 3)},
        )
        for name, lengths, state in (("lengths of sequences", "l", ""), ("a state for a number of rows", "", "h0"))
    ),
)


def test_a_recurrent_net_with_a_threshold_inside_jumps() -> None:
    def net(activation: str) -> Proof:
        nodes = [
            N("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
            N("RNN", ["t", "w", "r"], ["", "h"], hidden_size=3, activations=[activation]),
            N("Squeeze", ["h", "zero"], ["y"]),
        ]
        return proof(*nodes, inputs=WORDS, stored={**ZERO, "w": reals(1, 3, 4), "r": reals(1, 3, 3)})

    assert net("Tanh").holds
    assert not net("ThresholdedRelu").holds
