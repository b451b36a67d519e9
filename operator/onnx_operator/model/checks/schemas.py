"""The onnx package's definitions of operators."""

from functools import cache

import onnx

FAULTS_FOUND = (
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    ValueError,
    RuntimeError,
    IndexError,
    OverflowError,
)
"""What onnx's C++ code throws at a model: its own errors, and standard ones that pass through."""


@cache
def find_schema(domain: str, operator: str, opset: int) -> onnx.defs.OpSchema | None:
    """The definition of an operator in a version of its domain; None where there is none."""
    try:
        return onnx.defs.get_schema(operator, opset, domain)
    except onnx.defs.SchemaError:
        return None


def has_body(schema: onnx.defs.OpSchema) -> bool:
    """Tell whether an operator of the standard is defined by others."""
    # The package's type stubs leave both attributes out.
    return bool(getattr(schema, "has_function", False) or getattr(schema, "has_context_dependent_function", False))
