"""What each operator does with rows, one family a file. What is in no table is not proven."""

from onnx_operator.model.batching.call import Rule
from onnx_operator.model.batching.rules import (
    elementwise,
    gathering,
    linear,
    movement,
    normalizations,
    quantized,
    recurrent,
    shapes,
    spatial,
    traditional,
)

MICROSOFT, ML = "com.microsoft", "ai.onnx.ml"
RULES: dict[tuple[str, str], Rule] = {
    **{
        ("", name): rule for family in (elementwise, gathering, linear, movement) for name, rule in family.RULES.items()
    },
    **{("", name): rule for family in (normalizations, recurrent, shapes) for name, rule in family.RULES.items()},
    **{("", name): rule for family in (spatial, quantized) for name, rule in family.RULES.items()},
    **{(ML, name): rule for name, rule in traditional.RULES.items()},
    **{(MICROSOFT, name): rule for name, rule in elementwise.MICROSOFT.items()},
    **{(MICROSOFT, name): rule for name, rule in linear.MICROSOFT.items()},
    **{(MICROSOFT, name): rule for name, rule in normalizations.MICROSOFT.items()},
}
"""By domain and operator."""
ON_NUMBERS = shapes.ON_NUMBERS
"""Operators that are followed on sizes: they may be given what the number of rows has a part in."""
SIZES_AT = shapes.SIZES_AT
"""Inputs that are a shape, which may hold the number of rows, of operators of the standard."""
