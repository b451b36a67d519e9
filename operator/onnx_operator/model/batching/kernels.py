"""Which kernels of ONNX Runtime give the same bits for a row whatever the number of rows, and which operators jump.

Measured with ONNX Runtime 1.32 on x86-64 over many sizes and threads (``test_serving_sums.py``); an element at the end
of a tensor may be computed by other instructions than one in its middle, so that even operators of one element differ.
"""

import platform
from dataclasses import dataclass


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


_ALWAYS = names(
    "Abs Add And BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Clip Div Equal Floor Greater "
    "GreaterOrEqual Identity IsInf IsNaN LeakyRelu Less LessOrEqual Max Min Mod Mul Neg Not Or "
    "PRelu Reciprocal Relu Round Shrink Sign Sqrt Sub ThresholdedRelu Where Xor Dropout "
    "Concat ConstantOfShape DepthToSpace Expand Flatten Gather GatherElements GatherND OneHot Pad Reshape "
    "ReverseSequence Slice SpaceToDepth Split Squeeze Tile Transpose Trilu Unsqueeze "
    "ArgMax ArgMin GlobalMaxPool Hardmax MaxPool ReduceMax ReduceMin TopK "
    "ConvInteger DequantizeLinear MatMulInteger QLinearConv QLinearMatMul QuantizeLinear "
    "ArrayFeatureExtractor Binarizer CategoryMapper FeatureVectorizer Imputer LabelEncoder OneHotEncoder"
)
"""Each element by itself in the order that the standard gives, or moved only, or of whole numbers."""
_MEASURED = names(
    "BatchNormalization BiasGelu Conv ConvTranspose Erf FastGelu Gelu Gemm GRU HardSigmoid HardSwish "
    "LayerNormalization LSTM MatMul Pow QuickGelu Scaler Sigmoid Sum Tanh"
)
"""In single precision, and where the CPU is of the architecture that was measured; in double precision they differ.

Sums of products only with stored weights, which are arranged once; others are summed by another kernel for one row than
for more. The rules of Conv, Gemm, GRU, LSTM and MatMul tell."""
DISCONTINUOUS = names(
    "ArgMax ArgMin BitShift Ceil Cos Equal Floor Greater GreaterOrEqual Hardmax IsInf IsNaN Less LessOrEqual Mod "
    "OneHot QuantizeLinear Round Shrink Sign Sin Tan ThresholdedRelu TopK And Or Not Xor "
    "Acos Acosh Asin Atanh Binarizer CategoryMapper Imputer LabelEncoder OneHotEncoder TreeEnsemble "
    "TreeEnsembleClassifier "
    "TreeEnsembleRegressor SVMClassifier LinearClassifier QLinearConv QLinearMatMul MatMulInteger ConvInteger"
)
"""Where a difference in the last bit may become one in the first.

The sine of a large number hangs on its last bits, and what a function is not defined for is NaN."""
LABELLED = frozenset({"LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"})
"""Their first output is the place of the largest of what they have just computed."""
MAX_EXACT_TREES = 64
"""Trees whose sum ONNX Runtime makes one after the other for few rows; from 80 it shares them out."""
_MAX_ROWS_OF_TREES = 48
"""For more rows than 50 it shares out fewer trees as well."""
MAX_EXACT_TERMS = 128
"""Products that a kernel of single precision sums in one go, however it shares out the work; more only where weights
are stored."""


@dataclass(frozen=True)
class Kernels:
    """What is known of the machine that computes."""

    measured: bool
    """Whether it is the CPU of an architecture that was measured."""
    copies: bool = True
    """Whether even single elements and copies are known to keep their bits."""
    most_rows: int = 32
    """How many rows may share a run."""

    @property
    def exact_trees(self) -> int:
        """How many trees are summed in the same order whatever the number of rows."""
        return MAX_EXACT_TREES if self.measured and self.most_rows <= _MAX_ROWS_OF_TREES else 0

    def exact(self, operator: str, *, double: bool) -> bool:
        """Whether a row's bits do not depend on the number of rows."""
        if operator in _ALWAYS:
            return self.copies
        return self.measured and not double and operator in _MEASURED


BUNDLED = Kernels(measured=True)
"""The CPU image on x86-64: what a report tells."""


def kernels_here(*, accelerated: bool, most_rows: int) -> Kernels:
    """Those of this machine; of a GPU nothing was measured. ``most_rows`` may share a run."""
    measured = platform.machine().lower() in ("x86_64", "amd64")
    return Kernels(measured=measured and not accelerated, copies=not accelerated, most_rows=most_rows)
