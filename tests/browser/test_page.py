"""The page at `/`, as somebody with a browser meets it."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.browser.chromium import browser, entering, visiting
from tests.unit.server.serving import Process, model_bytes, node, serving, value

RANDOM = np.random.default_rng(3)
WEIGHTS = RANDOM.standard_normal((4, 3)).astype(np.float32)
CONVOLUTION = (RANDOM.standard_normal((5, 3, 3, 3)) / 9).astype(np.float32)


def classifier() -> bytes:
    return model_bytes(
        [node("MatMul", ["measures", "W"], ["logits"]), node("Softmax", ["logits"], ["probabilities"])],
        [value("measures", TensorProto.FLOAT, ["N", 4])],
        [value("probabilities", TensorProto.FLOAT, ["N", 3])],
        {"W": WEIGHTS},
    )


def pictures(shape: list[Any], channels_last: bool = False) -> bytes:
    nodes = [node("Transpose", ["image"], ["moved"], perm=[0, 3, 1, 2])] if channels_last else []
    channels = shape[3] if channels_last else shape[1]
    nodes += [
        node("Conv", ["moved" if channels_last else "image", "K"], ["features"], name="see"),
        node("GlobalAveragePool", ["features"], ["pooled"]),
        node("Flatten", ["pooled"], ["scores"]),
    ]
    outputs = [value("scores", TensorProto.FLOAT, [shape[0], 5])]
    kernel = CONVOLUTION[:, :channels]
    return model_bytes(nodes, [value("image", TensorProto.FLOAT, shape)], outputs, {"K": np.ascontiguousarray(kernel)})


def scores(model: bytes, feed: dict[str, Any]) -> Any:
    return ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feed)[0]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def iris() -> Iterator[Process]:
    with serving(classifier(), "--page", "--version", "7") as process:
        yield process


def url(process: Process) -> str:
    return f"http://127.0.0.1:{process.port}/"


def shown_json(page: Any) -> Any:
    return json.loads(page.locator("#outputs details pre").last.text_content())


def test_it_tells_what_the_model_is(chromium: Browser, iris: Process) -> None:
    with visiting(chromium, url(iris)) as watched:
        page = watched.page
        expect(page.locator("h1")).to_have_text("m")
        expect(page.locator("#about")).to_have_text("version 7 · runs on CPU")
        assert page.locator("#tensors tr").all_inner_texts() == [
            "input\tmeasures\tFP32\t[N, 4]",
            "output\tprobabilities\tFP32\t[N, 3]",
        ]
        assert watched.complaints == []


def test_numbers_typed_in_are_scored_as_onnx_runtime_scores_them(chromium: Browser, iris: Process) -> None:
    row = [5.1, 3.5, -1.4, 0.2]
    with visiting(chromium, url(iris)) as watched:
        page = watched.page
        for place, number in enumerate(row):
            page.get_by_label(str(place), exact=True).fill(str(number))
        page.get_by_role("button", name="Predict").click()
        page.wait_for_selector("#outputs h3")
        expected = scores(classifier(), {"measures": np.array([row], np.float32)})[0]
        assert shown_json(page) == pytest.approx(expected.tolist(), rel=1e-6)
        best = int(expected.argmax())
        expect(page.locator(".bars li").first).to_contain_text(f"class {best}")
        expect(page.locator(".bars li").first).to_contain_text(f"{100 * expected[best]:.1f} %")
        expect(page.locator("#latency")).to_contain_text("ms")


def test_everything_can_be_done_by_keyboard(chromium: Browser, iris: Process) -> None:
    with visiting(chromium, url(iris)) as watched:
        page = watched.page
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "input-0-0":
                break
        page.keyboard.press("Control+A")
        page.keyboard.type("2.5")
        page.keyboard.press("Enter")
        page.wait_for_selector("#outputs h3")
        expected = scores(classifier(), {"measures": np.array([[2.5, 0, 0, 0]], np.float32)})[0]
        assert shown_json(page) == pytest.approx(expected.tolist(), rel=1e-6)
        reached = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert {"predict", "show-graph", "curl", "python"} <= reached


def test_what_the_server_refuses_is_said_in_its_words(chromium: Browser, iris: Process) -> None:
    with visiting(chromium, url(iris)) as watched:
        page = watched.page
        page.get_by_label("0", exact=True).fill("five")
        page.get_by_role("button", name="Predict").click()
        expect(page.get_by_role("alert")).to_contain_text("input measures: element 0 is 'five', expected a number")


def test_the_commands_it_shows_do_the_same(chromium: Browser, iris: Process) -> None:
    import subprocess
    import sys

    with visiting(chromium, url(iris)) as watched:
        page = watched.page
        page.get_by_label("1", exact=True).fill("3.5")
        command, program = (page.locator(f"#{name}").text_content() for name in ("curl", "python"))
        page.get_by_role("button", name="Predict").click()
        page.wait_for_selector("#outputs h3")
        expected = shown_json(page)
    done = subprocess.run(["bash", "-c", f"{command} -s"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["outputs"][0]["data"] == expected
    # The standard library stands in for the package that the program imports.
    stub = (
        "import sys, types, json, urllib.request\n"
        "def post(url, json):\n"
        "    import json as j\n"
        "    sent = urllib.request.Request(url, j.dumps(json).encode(), {'Content-Type': 'application/json'})\n"
        "    body = urllib.request.urlopen(sent).read()\n"
        "    return types.SimpleNamespace(raise_for_status=lambda: None, json=lambda: body.decode())\n"
        "sys.modules['requests'] = types.SimpleNamespace(post=post)\n"
    )
    ran = subprocess.run([sys.executable, "-c", stub + str(program)], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["outputs"][0]["data"] == expected


def test_names_of_classes_come_from_a_file(chromium: Browser, iris: Process) -> None:
    with visiting(chromium, url(iris)) as watched:
        page = watched.page
        page.get_by_role("button", name="Predict").click()
        page.locator("#outputs summary", has_text="names of the classes").click()
        file = {"name": "labels.txt", "mimeType": "text/plain", "buffer": b"setosa\nversicolor\nvirginica\n"}
        page.locator("#outputs input.labels").set_input_files(file)  # type: ignore[arg-type]
        expect(page.locator(".bars")).to_contain_text("setosa")


def picture(size: tuple[int, int] = (8, 8)) -> tuple[bytes, Any]:
    pixels = RANDOM.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue(), pixels


@pytest.mark.parametrize(
    ("shape", "last", "scale"),
    [
        (["N", 3, 8, 8], False, "unit"),
        ([1, 8, 8, 3], True, "byte"),
        ([1, 1, 8, 8], False, "unit"),
        ([1, 3, 8, 8], False, "imagenet"),
        ([1, 3, 8, 8], False, "signed"),
    ],
)
def test_a_picture_becomes_the_input(chromium: Browser, shape: list[Any], last: bool, scale: str) -> None:
    model = pictures(shape, last)
    png, pixels = picture()
    wide = pixels.astype(np.float32)
    if shape[1] == 1:
        wide = (wide @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    if scale == "unit":
        wide = wide / 255
    elif scale == "signed":
        wide = wide / 127.5 - 1
    elif scale == "imagenet":
        wide = (wide / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    feed = wide[None] if last else wide.transpose(2, 0, 1)[None]
    expected = scores(model, {"image": feed.astype(np.float32)})[0]
    with serving(model, "--page") as process, visiting(chromium, url(process)) as watched:
        page = watched.page
        page.locator("select").select_option(scale)
        # Dropped from the desktop, as far as a page can tell.
        page.evaluate(
            """async (bytes) => {
                const moved = new DataTransfer();
                moved.items.add(new File([new Uint8Array(bytes)], "a.png", {type: "image/png"}));
                document.querySelector(".drop").dispatchEvent(new DragEvent("drop", {dataTransfer: moved}));
            }""",
            list(png),
        )
        page.wait_for_selector(".drop img:not([hidden])")
        page.get_by_role("button", name="Predict").click()
        page.wait_for_selector("#outputs h3")
        assert shown_json(page) == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-4)
        assert watched.complaints == []


def test_what_is_no_picture_is_said_so(chromium: Browser) -> None:
    with serving(pictures([1, 3, 8, 8]), "--page") as process, visiting(chromium, url(process)) as watched:
        file = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"hello"}
        watched.page.locator("input[type=file]").set_input_files(file)  # type: ignore[arg-type]
        expect(watched.page.get_by_role("alert")).to_contain_text("notes.txt is no picture")


def test_text_goes_to_models_that_take_text(chromium: Browser) -> None:
    content = model_bytes(
        [node("StringConcat", ["first", "second"], ["both"])],
        [value("first", TensorProto.STRING, ["N"]), value("second", TensorProto.STRING, ["N"])],
        [value("both", TensorProto.STRING, ["N"])],
    )
    with serving(content, "--page") as process, visiting(chromium, url(process)) as watched:
        fields = watched.page.locator(".fields input")
        fields.nth(0).fill('say "hi"')
        fields.nth(1).fill(" – ü")
        watched.page.get_by_role("button", name="Predict").click()
        watched.page.wait_for_selector("#outputs h3")
        assert shown_json(watched.page) == ['say "hi" – ü']


@pytest.mark.parametrize("later", [False, True], ids=["today", "two years later"])
def test_the_graph_shows_the_operators_and_nothing_leaves_or_carries_weights(chromium: Browser, later: bool) -> None:
    model = pictures(["N", 3, 8, 8])
    with serving(model, "--page") as process, visiting(chromium, url(process), later=later) as watched:
        page = watched.page
        page.get_by_role("button", name="Predict").click()
        page.get_by_role("button", name="Show the graph").click()
        graph = page.frame_locator("#graph-frame")
        for operator in ("Conv", "GlobalAveragePool", "Flatten"):
            expect(graph.locator("svg").get_by_text(operator, exact=True)).to_be_visible(timeout=20_000)
        expect(graph.locator("#message-text")).to_have_text("")
        # Looking at a node shows its attributes, and its weights as left out.
        graph.locator("svg").get_by_text("Conv", exact=True).click()
        expect(graph.locator(".sidebar")).to_contain_text("see")
        page.wait_for_timeout(500)
        for request in watched.requests:
            scheme, host = urlsplit(request.url)[:2]
            assert scheme in ("data", "blob") or host == f"127.0.0.1:{process.port}", request.url
            answered = request.response()
            if answered is not None and scheme == "http" and answered.status == 200:
                assert CONVOLUTION[0].tobytes()[:16] not in answered.body(), request.url
        assert any(request.url.endswith("/page/model.onnx") for request in watched.requests)
        assert watched.complaints == []


def test_no_script_but_the_pages_own_can_run(chromium: Browser, iris: Process) -> None:
    for path in ("/", "/page/graph/"):
        policy = iris.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe-eval" not in policy
    assert "unsafe-inline" not in iris.get("/").headers["content-security-policy"]
    with visiting(chromium, url(iris)) as watched:
        outcome = watched.page.evaluate(
            """() => new Promise((resolve) => {
                document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
                const script = document.createElement("script");
                script.textContent = "window.injected = true";
                document.body.append(script);
            })"""
        )
        assert outcome == "script-src-elem"
        assert watched.page.evaluate("window.injected") is None


def test_a_token_is_asked_for(chromium: Browser, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    with (
        serving(classifier(), "--page", "--token-file", str(tmp_path / "token")) as process,
        entering(chromium, url(process), "s3cret") as page,
    ):
        page.get_by_role("button", name="Predict").click()
        page.wait_for_selector("#outputs h3")
        assert "Bearer TOKEN" in str(page.locator("#curl").text_content())


def luminance(page: Any, selector: str) -> float:
    colour = page.evaluate(f"getComputedStyle(document.querySelector({selector!r})).backgroundColor")
    return float(np.mean([int(part) for part in re.findall(r"\d+", colour)[:3]]))


def test_it_is_light_or_dark_as_the_reader_wants_it_and_fits_a_phone(chromium: Browser, iris: Process) -> None:
    with visiting(chromium, url(iris), color_scheme="light") as watched:
        assert luminance(watched.page, "body") > 200
    phone = {"width": 390, "height": 800}
    with visiting(chromium, url(iris), color_scheme="dark", viewport=phone) as watched:
        assert luminance(watched.page, "body") < 60
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= 390
    with (
        serving(pictures([1, 3, 224, 224]), "--page") as process,
        visiting(chromium, url(process), viewport=phone) as watched,
    ):
        file = {"name": "a picture with a long name.png", "mimeType": "image/png", "buffer": picture()[0]}
        watched.page.locator("input[type=file]").set_input_files(file)  # type: ignore[arg-type]
        watched.page.wait_for_selector(".drop img:not([hidden])")
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_there_is_no_page_unless_it_is_asked_for() -> None:
    with serving(classifier()) as process:
        assert process.get("/").status == 404
        assert process.get("/page/model.onnx").status == 404


def test_the_structure_keeps_what_the_graph_needs_and_no_weights(iris: Process) -> None:
    sent = onnx.load_model_from_string(iris.get("/page/model.onnx").body)
    whole = onnx.load_model_from_string(classifier())
    assert [n.op_type for n in sent.graph.node] == [n.op_type for n in whole.graph.node]
    (weights,) = sent.graph.initializer
    assert (weights.name, list(weights.dims), weights.data_type) == ("W", [4, 3], TensorProto.FLOAT)
    assert not weights.raw_data
    assert not weights.float_data


def test_sizes_stay_and_weights_of_any_kind_go(tmp_path: Path) -> None:
    from onnx_operator.server.page.structure import structure

    inner = helper.make_graph(
        [node("Constant", [], ["c"], value=numpy_helper.from_array(WEIGHTS, "w"))], "inner", [], [value("c", 1, [4, 3])]
    )
    trees = node("TreeEnsembleRegressor", ["x"], ["t"], domain="ai.onnx.ml", nodes_values=[0.5] * 100, n_targets=1)
    nodes = [node("If", ["b"], ["i"], then_branch=inner, else_branch=inner), trees]
    content = model_bytes(nodes, [], [], {"shape": np.array([1, -1]), "W": WEIGHTS})
    (tmp_path / "m.onnx").write_bytes(content)
    found = onnx.load_model_from_string(structure(tmp_path / "m.onnx"))
    assert numpy_helper.to_array(found.graph.initializer[0]).tolist() == [1, -1]
    assert WEIGHTS.tobytes() not in found.SerializeToString()
    attributes = {a.name: a for a in found.graph.node[1].attribute}
    assert attributes["n_targets"].i == 1
    assert "nodes_values" not in attributes or not attributes["nodes_values"].floats
