"""Whatever graph is drawn, the verdict is the runtime's own, and the report tells the interface that it shows."""

from dataclasses import dataclass, field

import onnx
import onnxruntime
from hypothesis import given, settings
from hypothesis import strategies as st
from modelkit import CAPABILITIES, model, reason, tensor, value, verdict
from onnx import TensorProto, helper

node = helper.make_node
UNARY = ("Relu", "Abs", "Neg", "Exp", "Sigmoid", "Tanh", "Softmax", "Identity", "Floor")
BINARY = ("Add", "Sub", "Mul", "Max", "Min")
WIDTHS = st.sampled_from([1, 3, 8, 40])


@dataclass
class Drawn:
    """Values of two dimensions, the first one open, by their width."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    widths: dict[str, int] = field(default_factory=dict)


@st.composite
def graphs(draw: st.DrawFn) -> onnx.ModelProto:
    """Layers, sums, joins and slices over one or two inputs; some weights are large."""
    drawn = Drawn()
    inputs = {f"x{n}": draw(WIDTHS) for n in range(draw(st.integers(1, 2)))}
    drawn.widths |= inputs
    for number in range(draw(st.integers(1, 8))):
        _layer(draw, drawn, number)
    last = drawn.nodes[-1].output[0]
    others = draw(
        st.lists(
            st.sampled_from([n.output[0] for n in drawn.nodes if n.output[0] in drawn.widths]), max_size=2, unique=True
        )
    )
    outputs = [last, *(name for name in others if name != last)]
    return model(
        drawn.nodes,
        [value(name, ("N", width)) for name, width in inputs.items()],
        [value(name, ("N", drawn.widths[name])) for name in outputs],
        drawn.weights,
    )


def _layer(draw: st.DrawFn, drawn: Drawn, number: int) -> None:
    source = draw(st.sampled_from(list(drawn.widths)))
    width, out = drawn.widths[source], f"h{number}"
    match draw(st.sampled_from(["unary", "binary", "dense", "join", "cast"])):
        case "unary":
            drawn.nodes.append(node(draw(st.sampled_from(UNARY)), [source], [out], f"n{number}"))
        case "binary":
            other = draw(st.sampled_from([name for name, w in drawn.widths.items() if w == width]))
            drawn.nodes.append(node(draw(st.sampled_from(BINARY)), [source, other], [out], f"n{number}"))
        case "dense":
            wide = draw(WIDTHS)
            drawn.weights.append(tensor(f"w{number}", width, wide))
            drawn.nodes.append(node("MatMul", [source, f"w{number}"], [out], f"n{number}"))
            width = wide
        case "join":
            other = draw(st.sampled_from(list(drawn.widths)))
            drawn.nodes.append(node("Concat", [source, other], [out], f"n{number}", axis=1))
            width += drawn.widths[other]
        case "cast":
            drawn.nodes.append(node("Cast", [source], [f"d{number}"], f"c{number}", to=TensorProto.DOUBLE))
            drawn.nodes.append(node("Cast", [f"d{number}"], [out], f"n{number}", to=TensorProto.FLOAT))
    drawn.widths[out] = width


def session(m: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(m.SerializeToString(), options, providers=["CPUExecutionProvider"])


@given(graphs())
@settings(max_examples=120, deadline=None)
def test_a_valid_graph_is_accepted_and_told_as_the_runtime_shows_it(m: onnx.ModelProto) -> None:
    loaded = session(m)
    report = verdict(m, CAPABILITIES).report
    assert report is not None
    for told, shown in ((report.inputs, loaded.get_inputs()), (report.outputs, loaded.get_outputs())):
        assert [(each.name, list(each.shape)) for each in told] == [(each.name, each.shape) for each in shown]
    assert report.parameters == sum(weight.dims[0] * weight.dims[1] for weight in m.graph.initializer)
    assert report.flops >= 0
    assert report.memory.resident_bytes > report.memory.weights_bytes


@given(graphs(), st.data())
@settings(max_examples=80, deadline=None)
def test_one_fault_is_refused_for_what_it_is(m: onnx.ModelProto, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(m.graph.node) - 1))
    broken = m.graph.node[at]
    match data.draw(st.sampled_from(["dangling", "twice", "itself", "unknown", "opset", "name"])):
        case "dangling":
            broken.input[0] = "nowhere"
            expected = "InvalidGraph"
        case "twice":
            m.graph.node.append(node("Relu", [m.graph.input[0].name], [broken.output[0]]))
            expected = "InvalidGraph"
        case "itself":
            broken.input[0] = broken.output[0]
            expected = "InvalidGraph"
        case "unknown":
            broken.op_type = "Frobnicate"
            expected = "UnknownOperator"
        case "opset":
            m.opset_import[0].version = 99
            expected = "UnsupportedOpset"
        case "name":
            m.graph.node.append(node("Relu", [m.graph.input[0].name], ["more"], broken.name))
            expected = "InvalidGraph"
    assert reason(m, CAPABILITIES) == expected
    try:
        session(m)
    except Exception:
        return
    raise AssertionError("the runtime loads what is refused")
