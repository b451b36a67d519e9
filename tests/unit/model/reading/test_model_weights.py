"""Weights that are not in the skeleton still count in every check, wherever they are."""

import numpy as np
import onnx
import onnxruntime
import pytest
from modelkit import CAPABILITIES, model, tensor, value
from onnx import TensorProto, external_data_helper, helper

from onnx_operator.api.report import InspectionResult
from onnx_operator.model.reading.folder import MemoryFolder
from onnx_operator.model.reading.skeleton import STRIPPED
from onnx_operator.model.verdict import verify

node = helper.make_node
BIG = (100, 100)


def external(name: str, location: str, offset=0, length=40_000, dims=BIG) -> TensorProto:
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, content in (("location", location), ("offset", offset), ("length", length)):
        if content is not None:
            made.external_data.add(key=key, value=str(content))
    return made


def adds(*initializers: TensorProto) -> onnx.ModelProto:
    names = ["x", *(each.name for each in initializers)]
    return model([node("Sum", names, ["y"])], [value("x", BIG)], [value("y", BIG)], initializers)


def verdict(m: onnx.ModelProto, **files: int) -> InspectionResult:
    content = {name.replace("__", "/").replace("_", "."): bytes(size) for name, size in files.items()}
    data = m.SerializeToString()
    return verify(MemoryFolder({"dir/m.onnx": data, **content}), "dir/m.onnx", capabilities=CAPABILITIES)


def refusal(m: onnx.ModelProto, **files: int) -> tuple[str, str]:
    result = verdict(m, **files)
    assert result.refusal is not None, result
    return result.refusal.reason.value, result.refusal.message


def test_external_data_beside_the_model_belongs_to_it() -> None:
    result = verdict(adds(external("w", "w.bin"), external("v", "w.bin", 40_000)), dir__w_bin=80_000)
    assert result.report is not None, result.refusal
    assert result.files is not None
    assert [(file.name, file.size_bytes) for file in result.files.files][1:] == [("dir/w.bin", 80_000)]
    assert result.report.files == 2
    assert result.report.size_bytes > 80_000
    assert result.report.memory.weights_bytes == 80_000
    assert result.report.parameters == 20_000
    assert [each.name for each in result.report.inputs] == ["x"]


@pytest.mark.parametrize("location", ["./w.bin", ".//w.bin", "././w.bin"])
def test_parts_of_a_path_that_lead_nowhere_do_not_count(location: str) -> None:
    assert verdict(adds(external("w", location)), dir__w_bin=40_000).outcome == "Accepted"


def test_a_missing_file_is_named() -> None:
    reason, message = refusal(adds(external("w", "sub/w.bin")))
    assert reason == "ExternalDataMissing"
    assert '"sub/w.bin"' in message
    assert '"w"' in message


def test_a_file_that_is_too_short_is_named() -> None:
    reason, message = refusal(adds(external("w", "w.bin", 1)), dir__w_bin=40_000)
    assert reason == "ExternalDataMissing"
    assert "40001" in message
    assert "40000" in message


@pytest.mark.parametrize(
    "location",
    ["/etc/passwd", "../w.bin", "a/../../w.bin", "a\\b", "", "/w.bin", "*/_ORT_MEM_ADDR_/*/..", "w\x00.bin", ".", ".."],
)
def test_no_file_outside_the_models_folder_is_ever_looked_at(location: str) -> None:
    class Guarded(MemoryFolder):
        def size(self, name: str) -> int | None:
            assert name == "dir/m.onnx"
            return super().size(name)

    data = adds(external("w", location)).SerializeToString()
    result = verify(Guarded({"dir/m.onnx": data}), "dir/m.onnx", capabilities=CAPABILITIES)
    assert result.refusal is not None
    assert result.refusal.reason == "ExternalDataMissing"
    assert "not inside the model's folder" in result.refusal.message


@pytest.mark.parametrize(("offset", "length"), [("-1", 40_000), ("x", 40_000), (0, "-5"), (0, 39_999), (0, "9" * 30)])
def test_sizes_that_make_no_sense_are_refused(offset, length) -> None:
    assert refusal(adds(external("w", "w.bin", offset, length)), dir__w_bin=50_000)[0] == "InvalidGraph"


def test_offset_and_length_may_be_left_out() -> None:
    assert verdict(adds(external("w", "./w.bin", None, None)), dir__w_bin=40_000).outcome == "Accepted"


@pytest.mark.parametrize("dims", [(-1, 4), (2**62, 2**62), (2**63 - 1,)])
def test_absurd_shapes_are_refused(dims) -> None:
    assert verdict(adds(external("w", "w.bin", 0, 16, dims)), dir__w_bin=16).outcome == "Refused"


def test_large_constants_and_weights_of_branches_count_and_are_typed() -> None:
    """Both branches call their weight the same, and one hands it out as it is."""

    def branch(name: str, out: str) -> onnx.GraphProto:
        return helper.make_graph(
            [node("Add", ["x", "w"], [out])] if out != "w" else [], name, [], [value(out, BIG)], [tensor("w", *BIG)]
        )

    m = model(
        [
            node("Constant", [], ["c"], value=tensor("", *BIG)),
            node("If", ["cond"], ["i"], then_branch=branch("a", "s"), else_branch=branch("b", "w")),
            node("Add", ["c", "i"], ["y"]),
        ],
        [value("x", BIG), value("cond", (), TensorProto.BOOL)],
        [value("y", None)],
    )
    result = verdict(m)
    assert result.report is not None, result.refusal
    assert result.report.outputs[0].shape == list(BIG)
    assert result.report.parameters == 30_000
    onnxruntime.InferenceSession(m.SerializeToString())


def test_a_large_constant_may_be_an_output_itself() -> None:
    m = model([node("Constant", [], ["y"], value=tensor("", *BIG))], [], [value("y", None)])
    assert verdict(m).outcome == "Accepted"
    m = model([node("Abs", ["x"], ["z"])], [value("x")], [value("z"), value("w", BIG)], [tensor("w", *BIG)])
    assert verdict(m).outcome == "Accepted"


def test_a_wrong_type_of_a_large_weight_is_found_as_that_of_a_small_one() -> None:
    reason, message = refusal(adds(tensor("w", *BIG, kind=np.float64)))
    assert reason == "InvalidGraph"
    assert "Sum" in message


def test_two_large_initializers_of_one_name() -> None:
    assert refusal(adds(tensor("w", *BIG), tensor("w", *BIG)))[0] == "InvalidGraph"


def test_what_onnx_itself_saves_as_external_data_is_accepted(tmp_path) -> None:
    m = adds(tensor("w", *BIG), tensor("v", *BIG))
    external_data_helper.convert_model_to_external_data(m, location="weights.bin")
    onnx.save(m, tmp_path / "m.onnx")
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = verify(MemoryFolder(files), "m.onnx", capabilities=CAPABILITIES)
    assert result.outcome == "Accepted", result.refusal


def sparse(*indices: int) -> onnx.ModelProto:
    made = model([node("Add", ["x", "s"], ["y"])], [value("x", (2, 4))], [value("y", (2, 4))])
    places = helper.make_tensor("i", TensorProto.INT64, [len(indices)], indices)
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor("s", len(indices)), places, [2, 4]))
    return made


def test_sparse_weights_are_dense_to_operators_as_in_the_runtime() -> None:
    onnxruntime.InferenceSession(sparse(1, 5).SerializeToString())
    result = verdict(sparse(1, 5))
    assert result.report is not None, result.refusal
    assert [each.name for each in result.report.inputs] == ["x"]


def test_sparse_weights_outside_their_shape_are_refused() -> None:
    reason, message = refusal(sparse(1, 50))
    assert reason == "InvalidGraph"
    assert '"s"' in message


def test_a_mark_that_the_file_itself_makes_is_no_value() -> None:
    forged = TensorProto(name="v", data_type=TensorProto.FLOAT, dims=[100, 100])
    forged.external_data.add(key=STRIPPED, value="0")
    assert refusal(adds(tensor("w", *BIG), forged))[0] == "InvalidGraph"
