"""What the examples' makers share: they write down one question to a model and the framework's own answer to it.

Runs in every maker's environment, the oldest of which is Python 3.6; needs numpy and onnxruntime.
"""

# ruff: noqa: B905 - zip(strict=…) came with Python 3.10.
import json

import numpy as np
import onnxruntime

_DATATYPES = {"float32": "FP32", "float64": "FP64", "int32": "INT32", "int64": "INT64", "object": "BYTES"}


def record(folder, name, feed, answer, tolerance=1e-5):
    """Write `request.json` and `expected.json`, as the Open Inference Protocol has them, for the model `NAME.onnx`.

    `feed` and `answer` are arrays by the names of the model's inputs and outputs; `answer` is what the framework
    itself says. Fails where ONNX Runtime, with the converted model in `folder` (a `pathlib.Path`), differs from it by
    more than `tolerance`. Returns the largest difference.
    """
    difference = compare(folder / (name + ".onnx"), feed, answer, tolerance)
    _write(folder / "request.json", "inputs", [_tensor(key, value) for key, value in feed.items()])
    _write(folder / "expected.json", "outputs", [_tensor(key, value) for key, value in answer.items()])
    return difference


def record_score(folder, name, rows, answer, tolerance=1e-5):
    """The same as `/score` has them, which can also tell maps: `rows` go to the only input."""
    model = str(folder / (name + ".onnx"))
    feed = {onnxruntime.InferenceSession(model).get_inputs()[0].name: rows}
    difference = compare(model, feed, answer, tolerance)
    _write(folder / "request.json", "data", _plain(rows))
    write_answer(folder, answer)
    return difference


def record_table(folder, name, rows, answer, tolerance=1e-5, form="records"):
    """The same for a table: `rows` are objects by column, None where a value is missing.

    Columns are the model's inputs, or, in their order, the columns of its only one. `form` is pandas' name for what
    `request.json` holds: `records` or `split`.
    """
    model = str(folder / (name + ".onnx"))
    inputs = onnxruntime.InferenceSession(model).get_inputs()
    cells = [[np.nan if cell is None else cell for cell in row.values()] for row in rows]
    if [each.name for each in inputs] == list(rows[0]):
        texts = [each.type == "tensor(string)" for each in inputs]
        columns = [[row[at] for row in cells] for at in range(len(inputs))]
        feed = {
            each.name: np.array(column, object if text else np.float32).reshape(-1, 1)
            for each, column, text in zip(inputs, columns, texts)
        }
    else:
        feed = {inputs[0].name: np.array(cells, np.float32)}
    difference = compare(model, feed, answer, tolerance)
    lines = [_plain(row) for row in rows]
    if form == "split":
        lines = [list(row.values()) for row in lines]
        start, end = '{"columns": ' + json.dumps(list(rows[0])) + ', "data": [', "]}"
    else:
        start, end = "[", "]"
    (folder / "request.json").write_text(start + "\n  " + ",\n  ".join(map(json.dumps, lines)) + "\n" + end + "\n")
    write_answer(folder, answer)
    return difference


def write_answer(folder, answer):
    """Write `expected.json` for `/score`."""
    lines = ["  " + json.dumps(key) + ": " + json.dumps(_plain(value)) for key, value in answer.items()]
    (folder / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def compare(model, feed, answer, tolerance=1e-5):
    """The largest difference between `answer` and what ONNX Runtime says to the same; at most `tolerance`.

    An output is an array, or a list of maps.
    """
    session = onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model))
    names = list(answer)
    assert sorted(names) == sorted(output.name for output in session.get_outputs()), names
    results = session.run(names, feed)
    difference = max(_difference(_plain(result), _plain(answer[key])) for key, result in zip(names, results))
    assert difference <= tolerance, f"the converted model differs by {difference}"
    return difference


def _difference(seen, expected):
    if isinstance(expected, dict):
        assert set(seen) == set(expected), (seen, expected)
        return max(_difference(seen[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        assert len(seen) == len(expected), (seen, expected)
        return max(_difference(*pair) for pair in zip(seen, expected))
    if isinstance(expected, float):
        return abs(seen - expected)
    assert seen == expected, (seen, expected)
    return 0.0


def _tensor(name, value):
    datatype = _DATATYPES[value.dtype.name]
    return {"name": name, "shape": list(value.shape), "datatype": datatype, "data": _plain(value.ravel())}


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list) or (isinstance(value, np.ndarray) and value.dtype == np.float32):
        return [_plain(item) for item in value]
    if isinstance(value, (np.float32, float)):
        # As short as reads back to the same number.
        return float(str(np.float32(value)))
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _write(path, kind, items):
    path.write_text('{"' + kind + '": [\n  ' + ",\n  ".join(map(json.dumps, items)) + "\n]}\n")
