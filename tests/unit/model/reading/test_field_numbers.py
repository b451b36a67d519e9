"""The table of field numbers says what ONNX's own schema says."""

import onnx
import pytest

from onnx_operator.model.reading import numbers

MESSAGES = {
    "ModelField": onnx.ModelProto,
    "GraphField": onnx.GraphProto,
    "NodeField": onnx.NodeProto,
    "AttributeField": onnx.AttributeProto,
    "FunctionField": onnx.FunctionProto,
    "TensorField": onnx.TensorProto,
    "SparseTensorField": onnx.SparseTensorProto,
    "EntryField": onnx.StringStringEntryProto,
    "ValueInfoField": onnx.ValueInfoProto,
    "TypeField": onnx.TypeProto,
    "TensorTypeField": onnx.TypeProto.Tensor,
    "SequenceField": onnx.SequenceProto,
    "MapField": onnx.MapProto,
}


@pytest.mark.parametrize("name", [name for name in vars(numbers) if name.endswith("Field")])
def test_every_number_is_that_of_onnx(name: str) -> None:
    told = {field.lower(): number for field, number in vars(getattr(numbers, name)).items() if field.isupper()}
    known = {field.name.lower(): field.number for field in MESSAGES[name].DESCRIPTOR.fields}

    assert told
    assert told.items() <= known.items()


def test_the_values_of_a_tensor_are_all_of_its_fields_with_elements() -> None:
    held = {field.number for field in onnx.TensorProto.DESCRIPTOR.fields if field.name.endswith("_data")}

    assert held - {numbers.TensorField.EXTERNAL_DATA} == numbers.TENSOR_VALUES
