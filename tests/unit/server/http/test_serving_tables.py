"""Requests by column: what pandas, KServe's V1 protocol and MLflow send is understood, or refused by its place."""

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnx_operator.model.reading.window import Memory
from onnx_operator.model.reading.wire import head
from onnx_operator.server.dataplane.batching import run
from onnx_operator.server.dataplane.sizes import feed_bytes
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.jsonbody import encode, encode_in_pieces
from onnx_operator.server.http.predictions import read_prediction, rows_of, write_prediction
from onnx_operator.server.http.score import body_bytes, read_score_body, write_score
from onnx_operator.server.http.tables.csvtext import csv_bytes
from onnx_operator.server.runtime.guessing.graph import MAX_LISTED, parse_graph
from onnx_operator.server.runtime.session import Model
from tests.unit.server.runtime.test_serving_classes import classifier
from tests.unit.server.serving import linear, load_bytes, model_bytes, node, serving, tensor, value

FLOAT, INT64, STRING, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING, TensorProto.BOOL
CSV = b"text/csv"
ROWS = [
    {"age": 30.5, "visits": 2, "city": "Bern", "member": True},
    {"age": 4, "visits": 3, "city": "", "member": False},
]
NAMES = list(ROWS[0])


def columns() -> Model:
    """An input for each column, as scikit-learn's converter makes them; each is answered as it came."""
    kinds = {"age": FLOAT, "visits": INT64, "city": STRING, "member": BOOL}
    return load_bytes(
        model_bytes(
            [node("Identity", [name], [f"{name}_out"]) for name in kinds],
            [value(name, kind, ["N", 1]) for name, kind in kinds.items()],
            [value(f"{name}_out", kind, ["N", 1]) for name, kind in kinds.items()],
        )
    )


def matrix(shape: Any = ("N", 3)) -> Model:
    return load_bytes(
        model_bytes(
            [node("Identity", ["X"], ["Y"])], [value("X", FLOAT, list(shape))], [value("Y", FLOAT, list(shape))]
        )
    )


def score(model: Model, body: Any, content_type: bytes = b"application/json") -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    inference = read_score_body(model, raw, content_type)
    return json.loads(encode(write_score(model, inference.outputs, run(model, inference))))


def predict(model: Model, body: Any, content_type: bytes = b"application/json") -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    inference = read_prediction(model, raw, content_type)
    written = write_prediction(model, inference.outputs, run(model, inference), rows_of(inference))
    return json.loads(encode_in_pieces(written))["predictions"]


def refused(ask: Any, *arguments: Any) -> str:
    with pytest.raises(RequestError) as refusal:
        ask(*arguments)
    assert refusal.value.status == 400
    return refusal.value.message


def status(ask: Any, *arguments: Any) -> int:
    try:
        ask(*arguments)
    except RequestError as refusal:
        return refusal.status
    return 200


ANSWER = {f"{name}_out": [[row[name]] for row in ROWS] for name in NAMES}
LISTS = {name: [row[name] for row in ROWS] for name in NAMES}
DATA = [list(row.values()) for row in ROWS]


@pytest.mark.parametrize(
    "body",
    [
        ROWS,
        {"data": ROWS},
        [dict(reversed(row.items())) for row in ROWS],
        {"columns": NAMES, "data": DATA},
        {"columns": NAMES, "index": [7, 8], "data": DATA},
        {name: {"a": ROWS[0][name], "b": ROWS[1][name]} for name in NAMES},
        LISTS,
        {name: [[cell] for cell in column] for name, column in LISTS.items()},
        {"data": {"columns": NAMES[::-1], "data": [row[::-1] for row in DATA]}},
    ],
    ids=["records", "data", "order", "split", "index", "columns", "lists", "tensors", "data-split"],
)
def test_tables_in_the_forms_of_pandas(body: Any) -> None:
    assert score(columns(), body) == ANSWER


@pytest.mark.parametrize("body", [ROWS[0], {"data": ROWS[0]}, [ROWS[0]]], ids=["object", "data", "list"])
def test_one_object_is_one_row(body: Any) -> None:
    assert score(columns(), body) == {f"{name}_out": [[ROWS[0][name]]] for name in NAMES}


@pytest.mark.parametrize(
    "body",
    [
        [[1, 2, 3], [4, 5, 6]],
        {"data": [[1, 2, 3], [4, 5, 6]]},
        [{"a": 1, "b": 2, "c": 3}, {"b": 5, "c": 6, "a": 4}],
        {"columns": ["a", "b", "c"], "data": [[1, 2, 3], [4, 5, 6]]},
        {"columns": [0, 1, 2], "data": [[1, 2, 3], [4, 5, 6]]},
        {"a": [1, 4], "b": [2, 5], "c": [3, 6]},
        {"a": {"0": 1, "1": 4}, "b": {"0": 2, "1": 5}, "c": {"1": 6, "0": 3}},
        [{"X": [1, 2, 3]}, {"X": [4, 5, 6]}],
    ],
)
def test_an_input_that_is_a_matrix_takes_the_columns_in_their_order(body: Any) -> None:
    assert score(matrix(), body) == {"Y": [[1, 2, 3], [4, 5, 6]]}


def test_numbers_in_a_list_are_rows_of_one_column() -> None:
    for body in ([30.0, 31.0], {"data": [30.0, 31.0]}, {"X": [30.0, 31.0]}, [[30.0], [31.0]]):
        assert score(matrix(("N", 1)), body) == {"Y": [[30.0], [31.0]]}
    assert "a single row goes into a list of its own" in refused(score, matrix(), [1, 2, 3])


def test_csv_names_its_columns_in_the_first_line() -> None:
    quoted = 'city,member,visits,age\r\n"Bern, ""old""\nor new",true,2,30.5\r\nx,0,3.0,4e0\r\n'
    assert score(columns(), quoted.encode(), b"text/csv; charset=utf-8") == {
        "age_out": [[30.5], [4.0]],
        "visits_out": [[2], [3]],
        "city_out": [['Bern, "old"\nor new'], ["x"]],
        "member_out": [[True], [False]],
    }
    assert score(matrix(), b"\xef\xbb\xbfa,b,c\n1,2,3\n\n4,5,6", CSV) == {"Y": [[1, 2, 3], [4, 5, 6]]}
    for told in (b"text/csv; header=absent", b'text/csv;charset=utf-8; Header="absent"'):
        assert score(matrix(), b"1,2,3\n4,5,6", told) == {"Y": [[1, 2, 3], [4, 5, 6]]}
    assert "'header=none'; expected header=absent" in refused(score, matrix(), b"1,2,3", b"text/csv; header=none")
    assert score(matrix(), b"0,1,2\n4,5,6", b"text/csv;header=present") == {"Y": [[4, 5, 6]]}
    # As pandas writes it, with its index.
    assert score(matrix(), b",a,b,c\n0,1,2,3\n1,4,5,6\n", CSV) == {"Y": [[1, 2, 3], [4, 5, 6]]}


def test_a_first_line_of_numbers_is_not_taken_for_names() -> None:
    assert "header=absent" in refused(score, matrix(), b"1,2,3\n4,5,6", CSV)


def test_missing_values_are_nan_where_the_column_is_of_floats() -> None:
    model = matrix()
    assert score(model, {"columns": ["a", "b", "c"], "data": [[None, 1, "NaN"]]}) == {"Y": [["NaN", 1, "NaN"]]}
    assert score(model, b"a,b,c\n,NA,nan\ninf,-inf,1", CSV) == {"Y": [["NaN"] * 3, ["Infinity", "-Infinity", 1]]}


def changed(name: str, cell: Any) -> list[dict[str, Any]]:
    return [ROWS[0], ROWS[1] | {name: cell}]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (changed("age", "old"), "column 'age', row 1 is 'old', expected a number"),
        (changed("visits", None), "column 'visits', row 1 is null, expected an integer from"),
        (changed("visits", 2.5), "column 'visits', row 1 is 2.5, expected an integer"),
        (changed("city", None), "column 'city', row 1 is null, expected a string (BYTES)"),
        (changed("city", 8001), "column 'city', row 1 is 8001, expected a string (BYTES)"),
        (changed("member", "yes"), "column 'member', row 1 is 'yes', expected true or false"),
        (changed("age", {}), "column 'age', row 1 is an object, expected a number"),
        (changed("age", [1, 2]), "column 'age': data mixes lists and values"),
        (changed("height", 2), "row 1 has a column 'height', which row 0 does not have"),
        ([ROWS[0], {"age": 1}], "row 1 has no column 'visits', which row 0 has"),
        ([ROWS[0], 3], "row 1 is 3, expected an object by column"),
        ([ROWS[0] | {"height": 2}], "unknown column 'height'; the model takes age, visits, city, member"),
        ([{"age": 1}], "missing column: 'visits' (INT64), 'city' (BYTES), 'member' (BOOL); the table has age"),
        ({"columns": NAMES, "data": [DATA[0], [1]]}, "row 1 has 1 values for 4 columns"),
        ({"columns": ["age", "age"], "data": [[1, 2]]}, "the column 'age' comes twice"),
        ({"columns": [None], "data": []}, '"columns" must be a list of names'),
        ({"columns": ["age"], "data": [3]}, "row 0 is 3, expected a list of values"),
        ({"columns": [], "data": []}, "the table has no columns"),
        (
            {"age": {"0": 1, "1": 2}, "visits": {"0": 1}},
            "the columns 'age' and 'visits' differ in the row '1'",
        ),
        (3, "the body must be a JSON object, or a list"),
    ],
)
def test_what_is_wrong_is_told_with_its_column_and_row(body: Any, message: str) -> None:
    assert message in refused(score, columns(), body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"age,visits,city,member\n1,2,a,true\n1,2.5,a,true", "column 'visits', row 1 is 2.5, expected an integer"),
        (b"age,visits,city,member\n1,,a,true", "column 'visits', row 0 is missing, expected an integer"),
        (b"age,visits,city,member\n1,2,,true", "column 'city', row 0 is missing, expected a string"),
        (b"age,visits,city,member\n1_0,2,a,true", "column 'age', row 0 is '1_0', expected a number"),
        (b"age,visits,city,member\n1e999,2,a,true", "column 'age', row 0 is a number beyond 1.8e308, expected a"),
        (b"age,visits,city,member\n1,2,a", "row 0 has 3 values for 4 columns"),
        (b'age,visits\n"1,2', "the body is not valid CSV: line 2"),
        (b"age\n\xff", "the body is not UTF-8: byte 4"),
        (b"", "the body is empty; expected CSV whose first line names the columns"),
        (b"a" * 200_000, "the body is not valid CSV: line 1: field larger than field limit"),
        (b"," * 20_000 + b"\n", "of which at most 16384 are taken"),
    ],
)
def test_what_is_wrong_in_csv_is_told_too(body: bytes, message: str) -> None:
    assert message in refused(score, columns(), body, CSV)


def test_a_matrix_tells_what_is_wrong_by_column_and_row() -> None:
    told = refused(score, matrix(), {"columns": ["a", "b", "c"], "data": [[1, 2, 3], [4, "x", 6]]})
    assert "column 'b', row 1 is 'x', expected a number" in told
    told = refused(score, matrix(), [{"a": 1, "b": 2}])
    assert told == "input X takes 3 columns (FP32 [N, 3]), the table has 2: 'a', 'b'"
    assert "which no table is" in refused(score, matrix(("N", 3, 2, 2)), [{"a": 1}])


def encoded(zeros: int, shape: Any = ("N", 1), **categories: Any) -> Model:
    return load_bytes(encoder(zeros, shape, **categories))


def encoder(zeros: int, shape: Any = ("N", 1), **categories: Any) -> bytes:
    """Categories to columns; the last input column only where there are several."""
    kind = STRING if "cats_strings" in categories else INT64
    source, picked = "city", []
    if shape[-1] != 1:
        source, picked = "last", [node("ArrayFeatureExtractor", ["city", "at"], ["last"], domain="ai.onnx.ml")]
    nodes = [*picked, node("OneHotEncoder", [source], ["y"], domain="ai.onnx.ml", zeros=zeros, **categories)]
    return model_bytes(
        nodes,
        [value("city", kind, list(shape))],
        [value("y", FLOAT, None)],
        {"at": np.array([shape[-1] - 1])} if picked else None,
        opset=17,
        ml=True,
    )


def test_categories_that_the_graph_fails_on_are_told_by_column_and_row() -> None:
    texts = {"cats_strings": ["Bern", "Chur"]}
    model = encoded(0, **texts)
    assert score(model, [{"city": "Chur"}]) == {"y": [[[0.0, 1.0]]]}
    told = refused(score, model, [{"city": "Chur"}, {"city": "Bonn"}])
    assert told == "column 'city', row 1 is 'Bonn', expected one of Bern, Chur"
    assert "column 'city', row 1 is 7" in refused(
        score, encoded(0, cats_int64s=[1, 2]), {"columns": ["city"], "data": [[1], [7]]}
    )
    several = encoded(0, ("N", 2), **texts)
    assert score(several, {"columns": ["a", "b"], "data": [["Bonn", "Bern"]]}) == {"y": [[[1.0, 0.0]]]}
    assert "column 'b', row 0 is 'Bonn', expected one of Bern, Chur" in refused(
        score, several, {"columns": ["a", "b"], "data": [["Bern", "Bonn"]]}
    )


def test_categories_are_told_to_whoever_sends_no_table_too() -> None:
    told = "column 'city', row 1 is 'Bonn', expected one of Bern, Chur"
    with serving(encoder(0, cats_strings=["Bern", "Chur"])) as process:
        texts = ["Bern", "Bonn"]
        for path, body in (
            ("/score", {"data": {"city": [[text] for text in texts]}}),
            ("/score", {"data": texts}),
            ("/invocations", {"instances": texts}),
            ("/v2/models/m/infer", {"inputs": [tensor("city", "BYTES", [2, 1], texts)]}),
        ):
            answer = process.post(path, body)
            assert (answer.status, answer.json["error"]) == (400, told)
        raw = b"".join(len(text).to_bytes(4, "little") + text.encode() for text in texts)
        described = {"name": "city", "datatype": "BYTES", "shape": [2, 1]}
        described["parameters"] = {"binary_data_size": len(raw)}
        head = json.dumps({"inputs": [described]}).encode()
        answer = process.post("/v2/models/m/infer", head + raw, Inference_Header_Content_Length=str(len(head)))
        assert (answer.status, answer.json["error"]) == (400, told)


def test_categories_that_the_graph_passes_over_are_passed_on() -> None:
    assert score(encoded(1, cats_strings=["Bern", "Chur"]), [{"city": "Bonn"}]) == {"y": [[[0.0, 0.0]]]}
    # Longer lists than are looked at are the runtime's to judge.
    many = [f"c{number}" for number in range(1000)]
    assert sum(score(encoded(0, cats_strings=many), [{"city": "c999"}])["y"][0][0]) == 1


def test_of_a_tree_ensembles_millions_of_numbers_only_the_first_are_read() -> None:
    # What cannot be read stands where nobody looks: else the second node would be missing.
    listed = helper.make_attribute("nodes_values", [0.5] * MAX_LISTED).SerializeToString() + b"\x0f"
    forest = node("TreeEnsembleRegressor", ["x"], ["t"]).SerializeToString() + framed(5, listed)
    graph = framed(1, forest) + framed(1, node("OneHotEncoder", ["t"], ["y"]).SerializeToString())
    assert [each.operator for each in parse_graph(Memory(framed(7, graph))).nodes] == [
        "TreeEnsembleRegressor",
        "OneHotEncoder",
    ]


def framed(number: int, content: bytes) -> bytes:
    return head(number, len(content)) + content


def test_categories_are_read_with_the_model_and_not_while_a_caller_waits() -> None:
    with serving(encoder(0, cats_strings=["Bern"])) as process:
        process.model.unlink()
        told = process.post("/score", [{"city": "Bonn"}])
        assert (told.status, told.json["error"]) == (400, "column 'city', row 0 is 'Bonn', expected one of Bern")


def test_a_misspelt_word_does_not_make_a_table_without_names() -> None:
    frame = {"colums": ["visits", "age"], "data": [[1, 2, "Bern", True]]}
    assert "not 'colums'" in refused(predict, columns(), {"dataframe_split": frame})


# KServe's V1 protocol and MLflow.


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": NAMES, "data": DATA}},
        {"dataframe_records": ROWS},
        {"instances": ROWS},
        {"inputs": LISTS},
        {"inputs": ROWS, "params": {}},
    ],
    ids=["split", "records", "instances", "inputs", "rows"],
)
def test_predictions_of_several_outputs_are_objects_by_row(body: Any) -> None:
    assert predict(columns(), body) == [{f"{name}_out": [row[name]] for name in NAMES} for row in ROWS]


def test_predictions_of_one_output_are_its_rows() -> None:
    rows = [[1, 2, 3], [4, 5, 6]]
    for body in ({"instances": rows}, {"inputs": rows}, {"inputs": {"X": rows}}, {"dataframe_split": {"data": rows}}):
        assert predict(matrix(), body) == rows
    assert predict(matrix(), b"a,b,c\n1,2,3\n4,5,6\n", CSV) == rows
    assert predict(matrix(("N", 1)), {"instances": [30.0]}) == [[30.0]]


def test_predictions_name_the_classes() -> None:
    model = load_bytes(classifier(classlabels_strings=["a", "b", "c"]))
    (answer,) = predict(model, {"instances": [[5, 3, 1, 0]]})
    assert list(answer["probability"]) == ["a", "b", "c"]


def test_outputs_without_a_value_a_row_come_by_name() -> None:
    total = model_bytes(
        [node("ReduceSum", ["X"], ["sum"], keepdims=0)], [value("X", FLOAT, ["N", 3])], [value("sum", FLOAT, [])]
    )
    assert predict(load_bytes(total), {"instances": [[1, 2, 3]]}) == {"sum": 6.0}


def test_numbers_that_python_writes_without_json_are_understood_in_predictions() -> None:
    assert predict(matrix(), b'{"instances": [[NaN, Infinity, -Infinity]]}') == [["NaN", "Infinity", "-Infinity"]]
    told = refused(predict, columns(), b'{"dataframe_records": [{"age": 1, "visits": 1, "city": NaN, "member": true}]}')
    assert told == "column 'city', row 0 is null, expected a string (BYTES)"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, 'expected one of "instances", "inputs", "dataframe_split", "dataframe_records", got none'),
        ({"instances": [], "inputs": []}, "got instances and inputs"),
        ({"instances": 3}, '"instances" must be a list of rows, got 3'),
        ({"instances": [[1, 2, 3]], "params": {"k": 1}}, "takes no parameters"),
        ({"dataframe_records": []}, "expected a list of rows, each an object by column, got an empty list"),
        ({"dataframe_split": []}, 'expected an object with "columns"'),
        ([1], "the body must be a JSON object"),
    ],
)
def test_other_requests_for_predictions_are_refused(body: Any, message: str) -> None:
    assert message in refused(predict, matrix(), body)


@given(st.binary(max_size=200) | st.text(alphabet='ab1,."\r\n;', max_size=200).map(str.encode))
@settings(deadline=None, max_examples=300)
def test_whatever_comes_as_csv_is_answered_or_refused(body: bytes) -> None:
    for model in (MATRIX, COLUMNS):
        assert status(score, model, body, CSV) in (200, 400)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "NaN"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "X", "columns", "data"]), inner)
    ),
    max_leaves=12,
)


@given(JSONS, st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs"]))
@settings(deadline=None, max_examples=500)
def test_whatever_comes_as_json_is_answered_or_refused(body: Any, form: str) -> None:
    for model in (MATRIX, COLUMNS):
        assert status(score, model, body) in (200, 400)
        assert status(predict, model, {form: body}) in (200, 400)


MATRIX, COLUMNS = matrix(), columns()


def test_a_running_server_takes_tables_of_any_size() -> None:
    rows = 20_000
    text = b"a,b,c,d\n" + b"5.0,3.5,1.5,0.25\n" * rows
    with serving(linear()) as process:
        for path in ("/score", "/invocations", "/v1/models/m:predict"):
            small = process.post(path, text[:100].rpartition(b"\n")[0], Content_Type="text/csv")
            assert small.status == 200, small.body
            large = process.post(path, text, Content_Type="text/csv")
            assert large.status == 200, large.body[:500]
        assert len(large.json["predictions"]) == rows
        asked = process.post("/v1/models/m:predict", {"instances": [[5.0, 3.5, 1.5, 0.25]]}).json["predictions"]
        assert asked == large.json["predictions"][:1]
        wrong = process.post("/invocations", text + b"5.0,3.5,x,0.25\n", Content_Type="text/csv; charset=utf-8")
        assert wrong.status == 400
        assert f"column 'c', row {rows} is 'x', expected a number" in wrong.json["error"]
        assert process.get("/invocations").status == 405
        other = process.post("/v1/models/other:predict", {"instances": []})
        assert (other.status, other.json["error"]) == (
            404,
            "unknown model 'other'; this server serves model m (without versions)",
        )
        assert process.get("/v1/models").json == {"models": ["m"]}
        assert process.get("/v1/models/m").json["ready"] is True
        assert process.get("/ping").status == 200


def test_tables_beyond_the_memory_for_requests_are_refused_before_they_are_read() -> None:
    text = b"a,b,c,d\n" + b"1,2,3,4\n" * 200_000
    assert csv_bytes(text) > 64 << 20
    with serving(linear(), "--memory-budget", str(32 << 20)) as process:
        assert process.post("/invocations", text, Content_Type="text/csv").status in (413, 503)
        assert process.post("/invocations", text[:1000].rpartition(b"\n")[0], Content_Type="text/csv").status == 200


@pytest.mark.parametrize("line", [b"12\n", b"12,34,56,78,90\n", b'"",""\n', "ä€\n".encode(), b"1234567890123456\r\n"])
def test_reading_csv_takes_no_more_memory_than_is_counted(line: bytes) -> None:
    body = b",".join(b"c%d" % column for column in range(line.count(b",") + 1)) + b"\n" + line * 20_000
    model = TEXTS if line[0] > 127 else matrix(("N", None))
    tracemalloc.start()
    try:
        read_score_body(model, body, CSV)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= csv_bytes(body)


@pytest.mark.parametrize(
    ("body", "media"),
    [
        (f'c0\n"{"x" * 100_000}"\n'.encode() * 10 + "\U0001f600\n".encode(), CSV),
        (json.dumps({"c0": ["x" * 1_000_000 + "\U0001f600"]}, ensure_ascii=False).encode(), b""),
        (json.dumps({"c0": ["x" * 1_000_000 + "\U0001f600"]}).encode(), b""),
    ],
    ids=["csv", "json", "escaped"],
)
def test_one_wide_character_makes_all_of_a_text_wide_and_counts_so(body: bytes, media: bytes) -> None:
    tracemalloc.start()
    try:
        inference = read_score_body(TEXTS, body, media)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(body) + peak <= body_bytes(body, media)
    # What waits for its run is counted for as long.
    assert held <= feed_bytes(inference.feed, len(body))


TEXTS = load_bytes(
    model_bytes([node("Identity", ["c0"], ["y"])], [value("c0", STRING, ["N", 1])], [value("y", STRING, ["N", 1])])
)


def test_answers_are_the_same_by_every_way() -> None:
    model = load_bytes(linear())
    row = np.array([5.0, 3.5, 1.5, 0.25])
    by_name = score(model, {"columns": list("abcd"), "data": [row.tolist()]})
    assert by_name == score(model, {"data": [row.tolist()]})
