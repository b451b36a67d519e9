"""Trees, linear models and the preparation of features (domain ai.onnx.ml), a row at a time."""

from onnx_operator.model.batching.call import Call, Rule, known
from onnx_operator.model.batching.rules import gathering
from onnx_operator.model.batching.rules.elementwise import alike
from onnx_operator.model.batching.sizes import Size
from onnx_operator.model.batching.values import Sizes, UnprovenError, Value

_JUMPING = frozenset({"PROBIT", "SOFTMAX_ZERO"})
"""The one is NaN for what is no probability, the other leaves a zero as it is."""


def _table(call: Call) -> Sizes:
    """The shape of the one input: a row of features at each place of axis 0."""
    value = call.required(0)
    dims = known(value)
    if value.axis != 0 or len(dims) != 2:
        raise UnprovenError("works on a table, and its input is not a table of rows")
    return dims


def _without_jumps(call: Call) -> None:
    """The sums of these models are rounded by the number of rows."""
    if call.text("post_transform", "NONE").upper() in _JUMPING:
        raise UnprovenError("jumps at a sum of zero or one")
    if call.operator == "SVMRegressor" and call.integer("one_class", 0):
        raise UnprovenError("answers with the sign of a sum")


def classifier(call: Call) -> list[Value]:
    """A label and scores for each row."""
    if not call.required(0).batch:
        return [Value(), Value()]
    _without_jumps(call)
    dims = _table(call)
    return [Value(dims[:1], 0), Value((dims[0], call.symbols.size()), 0)]


def regressor(call: Call) -> Value:
    """Numbers for each row."""
    if not call.required(0).batch:
        return Value()
    _without_jumps(call)
    dims = _table(call)
    targets = call.integer("n_targets", call.integer("targets", 1))
    return Value((dims[0], Size(targets) if targets > 0 else call.symbols.size()), 0)


def scaled(call: Call) -> Value:
    """Scaler, Normalizer, Imputer, Binarizer: a number for each column, or for all."""
    if not call.required(0).batch:
        return Value(call.required(0).dims)
    return Value(_table(call), 0)


def encoded(call: Call) -> Value:
    """OneHotEncoder: a dimension more."""
    value = call.required(0)
    if not value.batch:
        return Value()
    return Value((*known(value), call.symbols.size()), value.axis)


def vectorized(call: Call) -> Value:
    """FeatureVectorizer: columns beside each other."""
    values = list(call.given())
    if not any(value.batch for value in values):
        return Value()
    rows = {known(value)[0] for value in values if value.axis == 0 and len(known(value)) == 2}
    if len(rows) != 1 or any(value.axis != 0 or len(known(value)) != 2 for value in values):
        raise UnprovenError("puts rows beside what are not rows")
    return Value((rows.pop(), call.symbols.size()), 0)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"), classifier),
    **dict.fromkeys(("LinearRegressor", "SVMRegressor", "TreeEnsembleRegressor", "TreeEnsemble"), regressor),
    **dict.fromkeys(("Scaler", "Normalizer", "Imputer", "Binarizer"), scaled),
    **dict.fromkeys(("LabelEncoder", "CategoryMapper"), alike),
    "OneHotEncoder": encoded,
    "FeatureVectorizer": vectorized,
    "ArrayFeatureExtractor": gathering.features,
}
