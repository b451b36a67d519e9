"""Field numbers of ONNX's messages: the one table of them, for all that reads a file without parsing it.

https://github.com/onnx/onnx/blob/main/onnx/onnx.proto and, of sequences and maps,
https://github.com/onnx/onnx/blob/main/onnx/onnx-data.proto. Only those that somebody here asks for.
"""

from typing import Final


class ModelField:
    """ModelProto."""

    IR_VERSION: Final = 1
    PRODUCER_NAME: Final = 2
    PRODUCER_VERSION: Final = 3
    DOMAIN: Final = 4
    MODEL_VERSION: Final = 5
    DOC_STRING: Final = 6
    GRAPH: Final = 7
    OPSET_IMPORT: Final = 8
    METADATA_PROPS: Final = 14
    TRAINING_INFO: Final = 20
    FUNCTIONS: Final = 25
    CONFIGURATION: Final = 26


class GraphField:
    """GraphProto."""

    NODE: Final = 1
    INITIALIZER: Final = 5
    DOC_STRING: Final = 10
    OUTPUT: Final = 12
    VALUE_INFO: Final = 13
    QUANTIZATION_ANNOTATION: Final = 14
    SPARSE_INITIALIZER: Final = 15
    METADATA_PROPS: Final = 16


class NodeField:
    """NodeProto."""

    INPUT: Final = 1
    OUTPUT: Final = 2
    NAME: Final = 3
    OP_TYPE: Final = 4
    ATTRIBUTE: Final = 5
    DOC_STRING: Final = 6
    DOMAIN: Final = 7
    METADATA_PROPS: Final = 9
    DEVICE_CONFIGURATIONS: Final = 10


class AttributeField:
    """AttributeProto."""

    NAME: Final = 1
    F: Final = 2
    I: Final = 3  # noqa: E741
    S: Final = 4
    T: Final = 5
    G: Final = 6
    FLOATS: Final = 7
    INTS: Final = 8
    STRINGS: Final = 9
    TENSORS: Final = 10
    GRAPHS: Final = 11
    DOC_STRING: Final = 13
    SPARSE_TENSOR: Final = 22
    SPARSE_TENSORS: Final = 23


class FunctionField:
    """FunctionProto."""

    NODE: Final = 7
    ATTRIBUTE_PROTO: Final = 11


class TensorField:
    """TensorProto."""

    DIMS: Final = 1
    DATA_TYPE: Final = 2
    SEGMENT: Final = 3
    FLOAT_DATA: Final = 4
    INT32_DATA: Final = 5
    STRING_DATA: Final = 6
    INT64_DATA: Final = 7
    NAME: Final = 8
    RAW_DATA: Final = 9
    DOUBLE_DATA: Final = 10
    UINT64_DATA: Final = 11
    DOC_STRING: Final = 12
    EXTERNAL_DATA: Final = 13
    DATA_LOCATION: Final = 14
    METADATA_PROPS: Final = 16


TENSOR_VALUES = frozenset(
    {
        TensorField.FLOAT_DATA,
        TensorField.INT32_DATA,
        TensorField.STRING_DATA,
        TensorField.INT64_DATA,
        TensorField.RAW_DATA,
        TensorField.DOUBLE_DATA,
        TensorField.UINT64_DATA,
    }
)
"""The fields of a tensor that hold its elements."""


class SparseTensorField:
    """SparseTensorProto."""

    VALUES: Final = 1
    INDICES: Final = 2


class EntryField:
    """StringStringEntryProto."""

    KEY: Final = 1
    VALUE: Final = 2


class ValueInfoField:
    """ValueInfoProto."""

    NAME: Final = 1
    TYPE: Final = 2


class TypeField:
    """TypeProto."""

    TENSOR_TYPE: Final = 1
    SEQUENCE_TYPE: Final = 4


class TensorTypeField:
    """TypeProto.Tensor."""

    ELEM_TYPE: Final = 1


class SequenceField:
    """SequenceProto."""

    TENSOR_VALUES: Final = 3
    MAP_VALUES: Final = 6


class MapField:
    """MapProto."""

    KEYS: Final = 3
    STRING_KEYS: Final = 4
    VALUES: Final = 5
