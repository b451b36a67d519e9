"""Element types of tensors are those of ONNX, whatever of ours names them."""

from onnx import TensorProto

from onnx_operator.model.elements import NAMES, Element, bits


def test_every_type_of_onnx_has_its_number_and_name() -> None:
    assert {name: getattr(Element, name) for name in NAMES} == dict(TensorProto.DataType.items())
    assert list(NAMES) == [TensorProto.DataType.Name(number) for number in range(len(NAMES))]


def test_every_type_but_texts_takes_room() -> None:
    assert [name for number, name in enumerate(NAMES) if not bits(number)] == ["UNDEFINED", "STRING"]
    assert [bits(element) for element in (Element.FLOAT, Element.BFLOAT16, Element.FLOAT8E4M3FN, Element.INT4)] == [
        *(32, 16, 8, 4)
    ]
