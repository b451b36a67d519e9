"""LSTM, GRU and RNN with the sequence at axis 0 and the batch at axis 1, as ONNX Runtime computes them."""

from onnx_operator.model.batching.call import Call, Rule, known
from onnx_operator.model.batching.sizes import Size
from onnx_operator.model.batching.values import UnprovenError, Value

_LENGTHS, _STATES = 4, (5, 6)


def recurrent(call: Call) -> list[Value]:
    """Every sequence by itself, from zeros or from a state of its own."""
    value = call.required(0)
    if not any(each.batch for each in call.given()):
        return [Value(), Value(), Value()]
    dims = known(value)
    if call.integer("layout", 0) or value.axis != 1 or len(dims) != 3:
        raise UnprovenError("goes through the rows as one sequence, or has its batch elsewhere than at axis 1")
    named = call.attributes.get("activations")
    if named is not None and any(each.lower() == b"thresholdedrelu" for each in named.strings):
        raise UnprovenError("jumps at a threshold within its sums")
    if call.input(_LENGTHS) is not None:
        raise UnprovenError("is given the lengths of its sequences")
    states = _STATES if call.operator == "LSTM" else _STATES[:1]
    call.only_fixed(1, 2, 3, *(index for index in range(7, len(call.inputs))))
    for index in states:
        state = call.input(index)
        if state is not None and (state.axis != 1 or known(state)[1] != dims[1]):
            raise UnprovenError("begins with a state that is not one for each row")
    weights = known(call.required(1))
    rounded = not (call.required(1).stored and call.required(2).stored)
    hidden = Size(call.integer("hidden_size", 0)) if call.integer("hidden_size", 0) > 0 else call.symbols.size()
    last = Value((weights[0], dims[1], hidden), 1, rounded=rounded)
    return [Value((dims[0], weights[0], dims[1], hidden), 2, rounded=rounded), last, last]


RULES: dict[str, Rule] = dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent)
