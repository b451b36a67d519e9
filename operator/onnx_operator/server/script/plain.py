"""What a script returns, written as JSON that every client can read.

As in Azure ML it is what ``json.dumps`` makes of it, keys included. Beyond Azure ML, where that fails or is no JSON:
NaN and infinities are texts, NumPy's values are those of Python, times are ISO 8601, tables of pandas are lists of
records.
"""

import datetime
import json
import math
from typing import Any


def to_json(value: Any) -> str:
    """Write a value. Raises TypeError, ValueError or RecursionError for what cannot be written."""
    try:
        return json.dumps(value, default=_plain, allow_nan=False)
    except (TypeError, ValueError):
        # Keys of NumPy's types, or a NaN: rare enough to be looked for only now.
        return json.dumps(_spelled(value), default=_plain, allow_nan=False)


def _plain(value: Any) -> Any:
    # By what they can do: NumPy and pandas are not imported for scripts that do not.
    if callable(getattr(value, "notna", None)) and callable(getattr(value, "where", None)):
        return _of_pandas(value)
    if callable(getattr(value, "tolist", None)):
        times = getattr(getattr(value, "dtype", None), "kind", "") == "M"
        return (value.astype(str) if times else value).tolist()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _of_pandas(value: Any) -> Any:
    """A frame as the list of its records, a series or an index as a list; what is missing is null, as pandas has it."""
    filled = value.astype(object).where(value.notna(), None)
    return filled.to_dict(orient="records") if hasattr(value, "columns") else filled.tolist()


def _spelled(value: Any) -> Any:
    """The same value without what JSON lacks."""
    if isinstance(value, dict):
        return {_key(key): _spelled(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else _word(value)
    if value is None or isinstance(value, str | int):
        return value
    return _spelled(_plain(value))


def _key(key: Any) -> Any:
    if not isinstance(key, str | int) and callable(getattr(key, "item", None)):
        # A number of NumPy's; of others json.dumps says what it thinks.
        key = key.item()
    return _word(key) if isinstance(key, float) and not math.isfinite(key) else key


def _word(number: float) -> str:
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
