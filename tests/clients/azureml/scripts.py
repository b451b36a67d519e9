"""The scripts, and the requests of each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Ask:
    """A request; ``beyond`` says how our answer differs from Azure's, and why."""

    body: str = ""
    method: str = "POST"
    target: str = "/score"
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    raw: bytes | None = None
    """The body, where it is no text."""
    beyond: "Beyond | None" = None

    @property
    def content(self) -> bytes:
        """The body as it is sent."""
        return self.body.encode() if self.raw is None else self.raw


@dataclass(frozen=True)
class Beyond:
    """Where ours answers otherwise, on purpose."""

    why: str
    status: int
    body: str | None = None
    """None: any."""


@dataclass(frozen=True)
class Script:
    """A folder with a scoring script. ``entry`` is relative to it; without ``asks`` the server does not start."""

    files: Mapping[str, str]
    asks: Mapping[str, Ask] = field(default_factory=dict)
    entry: str = "score.py"


def posts(bodies: Mapping[str, Any], **common: Any) -> dict[str, Ask]:
    """Requests by name, each with a value that is sent as JSON."""
    return {name: Ask(json.dumps(value), **common) for name, value in bodies.items()}


VALUES = """
import collections, dataclasses, datetime, decimal, enum, json, math, uuid
import numpy as np
import pandas as pd

Pair = collections.namedtuple("Pair", "a b")

@dataclasses.dataclass
class Point:
    x: int = 1

class Colour(enum.IntEnum):
    RED = 1

def fail(error):
    raise error

async def later():
    return 1

def init():
    pass

def run(raw_data):
    return eval(raw_data, globals())
"""
_SAME = [
    "None",
    "True",
    "3",
    "2**70",
    "1.5",
    "-0.0",
    "1e-7",
    "1e300",
    "''",
    "'text'",
    "'é ☃ \\U0001F600 \\u2028 \\x00 \"'",
    "'\\ud800'",
    "[]",
    "()",
    "(1, [2, (3,)])",
    "{}",
    "{'b': 1, 'a': {'c': [None, True, 2.5]}}",
    "{1: 'a', -2: 'b'}",
    "{1.5: 'a', 2.0: 'b'}",
    "{True: 'a', None: 'b'}",
    "{'1': 'a', 1: 'b'}",
    "Pair(1, 2)",
    "collections.OrderedDict(b=1, a=2)",
    "collections.Counter('aab')",
    "Colour.RED",
    "{Colour.RED: Colour.RED}",
    "np.float64(1.5)",
    "{np.float64(1.5): np.str_('a')}",
    "np.str_('a')",
    "json.dumps({'label': 'cat', 'scores': [0.5, 0.25]})",
    "json.dumps({'a': math.nan})",
    "json.dumps([1, 2]).encode().decode()",
    "pd.DataFrame({'a': [1, 2], 'b': ['x', None]}).to_json(orient='records')",
    "pd.DataFrame({'a': [1, 2]}).to_dict(orient='records')",
    "np.array([[1.5, 2]]).tolist()",
    # What is no JSON fails in both.
    "{(1, 2): 3}",
    "{1, 2}",
    "object()",
    "Point()",
    "iter([1])",
    "decimal.Decimal('1.5')",
    "later()",
    "1j",
    "lambda: 1",
    "{b'a': 1}",
    # So does what raises.
    "1 / 0",
    "fail(ValueError('bad input'))",
    "no_such_name",
    "(",
    "(lambda f: f(f))(lambda f: f(f))",
]
_NAN = (
    "JSON has no NaN: clients in Java, JavaScript and Go cannot read it. It is spelled as /score does without a script"
)
_PLAIN = "Azure ML fails; the value that is meant is plain"
_BEYOND = {
    "fail(TimeoutError('slow'))": Beyond("Azure ML takes it for its own timeout", 500),
    "math.nan": Beyond(_NAN, 200, '"NaN"'),
    "[math.inf, -math.inf]": Beyond(_NAN, 200, '["Infinity", "-Infinity"]'),
    "{'scores': [float('nan'), 1.0], 'ok': True}": Beyond(_NAN, 200, '{"scores": ["NaN", 1.0], "ok": true}'),
    "{'p': np.float64('nan')}": Beyond(_NAN, 200, '{"p": "NaN"}'),
    "b'\\x00\\xff'": Beyond(_PLAIN, 200, "\x00\xff"),
    "np.float32(0.5)": Beyond(_PLAIN, 200, "0.5"),
    "{'label': np.int64(3), 'ok': np.bool_(True)}": Beyond(_PLAIN, 200, '{"label": 3, "ok": true}'),
    "np.array([[1, 2], [3, 4]])": Beyond(_PLAIN, 200, "[[1, 2], [3, 4]]"),
    "[np.array([0.5, math.nan], np.float32)]": Beyond(_PLAIN, 200, '[[0.5, "NaN"]]'),
    "{np.int64(7): 0.5, np.bool_(True): 1, np.float32(0.5): 2}": Beyond(_PLAIN, 200, '{"7": 0.5, "true": 1, "0.5": 2}'),
    "pd.Series([1, 2])": Beyond(_PLAIN, 200, "[1, 2]"),
    "pd.DataFrame({'a': [1, 2], 'b': ['x', None]})": Beyond(
        "As MLflow's scoring server writes it, which scripts for MLflow models on Azure ML use",
        200,
        '[{"a": 1, "b": "x"}, {"a": 2, "b": null}]',
    ),
    "pd.Series([1.0, None])": Beyond(_PLAIN, 200, "[1.0, null]"),
    "pd.DataFrame({'t': pd.to_datetime(['2020-01-02']), 'x': [1.5]})": Beyond(
        _PLAIN, 200, '[{"t": "2020-01-02T00:00:00", "x": 1.5}]'
    ),
    "{'at': np.datetime64('2020-01-02T03:04')}": Beyond(_PLAIN, 200, '{"at": "2020-01-02T03:04"}'),
    "datetime.datetime(2020, 1, 2, 3, 4, 5)": Beyond(_PLAIN, 200, '"2020-01-02T03:04:05"'),
    "[datetime.date(2020, 1, 2), pd.Timestamp('2020-01-02')]": Beyond(
        _PLAIN, 200, '["2020-01-02", "2020-01-02T00:00:00"]'
    ),
    "np.array(['2020-01-02'], 'datetime64[D]')": Beyond(_PLAIN, 200, '["2020-01-02"]'),
}

ECHO = """
def init():
    pass

def run(raw_data):
    return [type(raw_data).__name__, raw_data]
"""

HEADERS = """
def init():
    pass

def run(data, request_headers):
    wanted = ("X-Kind", "Content-Type", "X-Two")
    return [data, {name: request_headers.get(name) for name in wanted}, type(request_headers).__name__]
"""

NUMPY_SCHEMA = """
import numpy as np
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType

def init():
    pass

@input_schema("data", NumpyParameterType(np.array([[0.1, 1.2]])))
@input_schema("scale", StandardPythonParameterType(1.0))
@output_schema(StandardPythonParameterType({"sum": 1.5}))
def run(data, scale=2.0):
    return {"sum": float(data.sum()) * scale, "shape": data.shape, "type": str(data.dtype)}
"""

PANDAS_SCHEMA = """
import pandas as pd
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
import numpy as np

def init():
    pass

@input_schema("data", PandasParameterType(pd.DataFrame({"age": pd.Series([1], dtype="int64"),
                                                        "name": pd.Series(["a"], dtype="object")})))
@output_schema(NumpyParameterType(np.array([0])))
def run(data):
    return {"columns": list(data.columns), "age": data["age"].tolist(), "name": data["name"].tolist(),
            "types": [str(t) for t in data.dtypes]}
"""

NESTED_SCHEMA = """
import numpy as np, pandas as pd
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType

def init():
    pass

inputs = StandardPythonParameterType({
    "table": PandasParameterType(pd.DataFrame({"a": [1]})),
    "array": NumpyParameterType(np.array([1])),
    "method": StandardPythonParameterType("predict"),
})

@input_schema("Inputs", inputs)
@input_schema("GlobalParameters", StandardPythonParameterType(1.0))
@output_schema(StandardPythonParameterType({"Results": [1]}))
def run(Inputs, GlobalParameters=1.0):
    table, array = Inputs["table"], Inputs["array"]
    return {"Results": [type(table).__name__, type(array).__name__, Inputs["method"], GlobalParameters]}
"""

RAW = """
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse

def init():
    pass

@rawhttp
def run(request):
    kind = request.args.get("kind")
    if kind == "json":
        return request.get_json()
    if kind == "member":
        return request.json["a"]
    if kind == "form":
        return {"fields": request.form.to_dict(), "files": {k: v.read().hex() for k, v in request.files.items()}}
    if kind == "bytes":
        return AMLResponse(bytes(reversed(request.get_data(False))), 200, {"Content-Type": "image/png"})
    if kind == "text":
        return AMLResponse(request.get_data(as_text=True), 200)
    if request.method == "GET":
        return AMLResponse(request.full_path, 200)
    if request.method == "POST":
        return {"method": request.method, "path": request.path, "args": request.args.to_dict(flat=False),
                "kind": request.content_type, "length": request.content_length, "type": request.headers["X-Kind"],
                "data": request.data.decode(), "is_json": request.is_json}
    return AMLResponse("bad request", 500)
"""

RESPONSES = """
import json
from azureml_inference_server_http.api.aml_response import AMLResponse

def init():
    pass

def run(raw_data):
    return eval(raw_data, globals())
"""
_RESPONSES = [
    "AMLResponse('text', 200)",
    "AMLResponse(b'\\x00\\xff', 200)",
    "AMLResponse(None, 200)",
    "AMLResponse('', 204)",
    "AMLResponse('missing', 404)",
    "AMLResponse('broken', 503)",
    "AMLResponse('text', 200, run_function_failed=True)",
    "AMLResponse({'a': [1, None]}, 201, json_str=True)",
    "AMLResponse('text', 200, json_str=True)",
    "AMLResponse(json.dumps({'a': 1}), 200, {'Content-Type': 'application/json'})",
    "AMLResponse('a,b', 200, {'Content-Type': 'text/csv'})",
    "AMLResponse({'azEnvironment': 'Azure'}, 201)",
    "AMLResponse(['a', 'b'], 200)",
    "AMLResponse({1, 2}, 200, json_str=True)",
    "[AMLResponse('text', 200)]",
]

NESTED = {
    "src/score.py": """
import os, sys
from src.features import twice
from settings import OFFSET

def init():
    pass

def run(raw_data):
    here = os.getcwd()
    return {"value": twice(2) + OFFSET, "words": open("data/words.txt").read(),
            "root": os.path.basename(os.environ["AML_APP_ROOT"]) == os.path.basename(here),
            "script": os.path.relpath(os.path.join(os.environ["AML_APP_ROOT"], os.environ["AZUREML_ENTRY_SCRIPT"]))}
""",
    "src/__init__.py": "",
    "src/features.py": "def twice(x):\n    return 2 * x\n",
    "settings.py": "OFFSET = 10\n",
    "data/words.txt": "a b",
}

MODELS = """
import os

def init():
    global found
    root = os.environ["AZUREML_MODEL_DIR"]
    found = sorted(os.path.relpath(os.path.join(folder, name), root)
                   for folder, _, names in os.walk(root) for name in names)

def run(raw_data):
    return found
"""

DRIVEN = {
    "main.py": """
import score as driver_module

def init():
    driver_module.init()

def run(*args, **kwargs):
    return driver_module.run(*args, **kwargs)
""",
    "score.py": ECHO,
}

_GOOD = {"data": [[1, 2], [3, 4]], "scale": 0.5}
_METHOD = Beyond("The server refuses it, in words of its own, before the script sees it", 405)
_NO_CASE = Beyond("Names of parameters are found in any case", 200)
_FORM = (
    b'--b\r\nContent-Disposition: form-data; name="top"\r\n\r\n3\r\n'
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
    b"Content-Type: image/png\r\n\r\n\x89PNG\r\n\x00\xff\r\n--b--\r\n"
)

SCRIPTS: dict[str, Script] = {
    "values": Script(
        {"score.py": VALUES},
        {each: Ask(each) for each in _SAME} | {each: Ask(each, beyond=beyond) for each, beyond in _BEYOND.items()},
    ),
    "echo": Script(
        {"score.py": ECHO},
        {
            "json": Ask('{"data": [1, 2]}'),
            "empty": Ask(""),
            "no JSON": Ask("a=b"),
            "not ASCII": Ask('"é"'),
            "a byte order mark": Ask(raw=b'\xef\xbb\xbf{"a": 1}'),
            "no UTF-8": Ask(raw=b'{"a": "\xe9"}'),
            "plain text": Ask("hello", headers={"Content-Type": "text/plain"}),
            "no type": Ask("hello", headers={}),
            "as curl posts": Ask(
                '{"a": 1}',
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                beyond=Beyond("Azure ML takes it for a form and hands over nothing", 200, '["str", "{\\"a\\": 1}"]'),
            ),
            "get": Ask(method="GET", target="/score?a=1&b=[1,2]&c=a&d=null&e=&f=1&f=x&g=%C3%A9+x", headers={}),
            "get nothing": Ask(method="GET", headers={}),
            "options": Ask(method="OPTIONS", headers={}),
            "put": Ask("1", method="PUT", beyond=_METHOD),
            "delete": Ask(method="DELETE", beyond=_METHOD),
            "ids": Ask("1", headers={**JSON, "x-ms-client-request-id": "mine-7", "TraceId": "t-1"}),
        },
    ),
    "headers": Script(
        {"score.py": HEADERS},
        {
            "post": Ask("1", headers={**JSON, "x-kind": "a"}),
            "get": Ask(method="GET", target="/score?a=1", headers={"X-KIND": "b"}),
        },
    ),
    "numpy schema": Script(
        {"score.py": NUMPY_SCHEMA},
        posts(
            {
                "good": _GOOD,
                "default": {"data": [[1, 2]]},
                "more": {**_GOOD, "other": 1},
                "a bare row": {"data": [1, 2]},
                "missing": {"scale": 1},
                "null": {"data": None},
                "text in numbers": {"data": [["a", "b"]]},
                "a number": {"data": 5},
                "scale as text": {"data": [[1, 2]], "scale": "x"},
                "a list": [1],
                "a text": "x",
            }
        )
        | posts({"another case": {"Data": [[1, 2]], "SCALE": 2}}, beyond=_NO_CASE)
        | {
            "no JSON": Ask("{"),
            "empty": Ask(""),
            "plain text": Ask("{}", headers={"Content-Type": "text/plain"}),
            "no type": Ask("{}", headers={}),
            "a charset": Ask('{"data": [[1, 2]]}', headers={"Content-Type": "application/json; charset=utf-8"}),
            "a kind of JSON": Ask('{"data": [[1, 2]]}', headers={"Content-Type": "application/problem+json"}),
            "get": Ask(method="GET", target="/score?data=[[1,2]]&scale=3", headers={}),
            "get without": Ask(method="GET", target="/score?scale=3", headers={}),
            "options": Ask(method="OPTIONS", headers={}),
        },
    ),
    "pandas schema": Script(
        {"score.py": PANDAS_SCHEMA},
        posts(
            {
                "records": {"data": [{"age": 3, "name": "b"}, {"age": 4, "name": "c"}]},
                "columns turned around": {"data": [{"name": "b", "age": 3}]},
                "a column missing": {"data": [{"age": 3}]},
                "a column more": {"data": [{"age": 3, "name": "b", "x": 1}]},
                "rows": {"data": [[3, "b"]]},
                "numbers as text": {"data": [{"age": "3", "name": "b"}]},
                "no number": {"data": [{"age": "old", "name": "b"}]},
                "a text": {"data": "x"},
                "nothing": {},
            }
        ),
    ),
    "nested schema": Script(
        {"score.py": NESTED_SCHEMA},
        posts(
            {
                "good": {
                    "Inputs": {"table": [{"a": 1}], "array": [1, 2], "method": "predict"},
                    "GlobalParameters": 2.5,
                },
                "default": {"Inputs": {"table": [{"a": 1}], "array": [1, 2], "method": "predict"}},
                "a part missing": {"Inputs": {"table": [{"a": 1}]}},
                "no object": {"Inputs": 5},
            }
        ),
    ),
    "raw": Script(
        {"score.py": RAW},
        {
            "json": Ask('{"a": [1]}', target="/score?kind=json"),
            "member": Ask('{"a": [1]}', target="/score?kind=member"),
            "no member": Ask("{}", target="/score?kind=member"),
            "bad JSON": Ask("{", target="/score?kind=json"),
            "another type": Ask("{}", target="/score?kind=json", headers={"Content-Type": "text/plain"}),
            "bytes": Ask(raw=b"\x00\x01\xff", target="/score?kind=bytes", headers={"Content-Type": "image/png"}),
            "text": Ask("é", target="/score?kind=text"),
            "form": Ask(
                "a=1&b=x+y&a=2",
                target="/score?kind=form",
                headers={"Content-Type": "application/x-www-form-urlencoded"},
            ),
            "files": Ask(
                raw=_FORM, target="/score?kind=form", headers={"Content-Type": "multipart/form-data; boundary=b"}
            ),
            "post": Ask("{}", target="/score?a=b&a=c&d", headers={**JSON, "X-Kind": "k"}),
            "no header": Ask("{}"),
            "get": Ask(method="GET", target="/score?a=b%20c", headers={}),
            "get without query": Ask(method="GET", headers={}),
            "options": Ask(method="OPTIONS", headers={}),
        },
    ),
    "responses": Script(
        {"score.py": RESPONSES},
        {each: Ask(each) for each in _RESPONSES}
        | {
            "AMLResponse(5, 200)": Ask(
                "AMLResponse(5, 200)", beyond=Beyond("Azure ML's server fails with a page of HTML", 500)
            ),
            "AMLResponse('text', '200')": Ask(
                "AMLResponse('text', '200')", beyond=Beyond("Azure ML fails; what is meant is plain", 200, "text")
            ),
        },
    ),
    "a folder within": Script(NESTED, {"post": Ask("1")}, entry="src/score.py"),
    "models": Script({"score.py": MODELS}, {"post": Ask("1")}),
    "driven": Script(
        DRIVEN, {"post": Ask('{"a": 1}'), "get": Ask(method="GET", target="/score?a=1", headers={})}, entry="main.py"
    ),
    "init fails": Script(
        {"score.py": "def init():\n    raise ValueError('bad weights')\ndef run(data):\n    return 1\n"}
    ),
    "no run": Script({"score.py": "def init():\n    pass\n"}),
    "no init": Script({"score.py": "def run(data):\n    return 1\n"}),
    "no parameter": Script({"score.py": "def init():\n    pass\ndef run():\n    return 1\n"}),
    "any parameters": Script({"score.py": "def init():\n    pass\ndef run(*data, **more):\n    return 1\n"}),
    "headers alone": Script({"score.py": "def init():\n    pass\ndef run(request_headers):\n    return 1\n"}),
    "two decorators": Script(
        {
            "score.py": NUMPY_SCHEMA.replace(
                "def init", "from azureml.contrib.services.aml_request import rawhttp\ndef init"
            ).replace('@input_schema("data"', '@rawhttp\n@input_schema("data"')
        }
    ),
    "an import fails": Script(
        {"score.py": "import no_such_package\ndef init():\n    pass\ndef run(data):\n    return 1\n"}
    ),
    "a syntax error": Script({"score.py": "def init(:\n"}),
}
"""By name."""

MODEL_FILES = ("assets/vocab.txt", "labels.json", "model.onnx")
"""What lies in ``AZUREML_MODEL_DIR``."""
