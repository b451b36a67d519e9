"""What the page shows of answers, and that it says exactly what was typed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from playwright.sync_api import Browser, Page, expect

from onnx_operator.server.page.structure import structure
from tests.browser.chromium import browser, entering, visiting
from tests.unit.server.serving import identity, model_bytes, node, serving, value


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


def url(process: Any) -> str:
    return f"http://127.0.0.1:{process.port}/"


def predict(page: Page) -> None:
    page.get_by_role("button", name="Predict").click()
    page.wait_for_selector("#outputs h3")


def flowers() -> bytes:
    """A classifier as skl2onnx makes it unless told otherwise: a label, and a map of probabilities."""
    coefficients = [0.1, 0.2, -1.0, -0.5, 0.2, -0.1, 0.1, -0.3, -0.5, -0.2, 1.0, 0.9]
    classifier = node(
        "LinearClassifier",
        ["X"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        classlabels_strings=["setosa", "versicolor", "virginica"],
        coefficients=coefficients,
        intercepts=[3.0, 1.0, -4.0],
        post_transform="SOFTMAX",
    )
    names = ["setosa", "versicolor", "virginica"]
    zipped = node("ZipMap", ["scores"], ["probability"], domain="ai.onnx.ml", classlabels_strings=names)
    kind = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    probability = helper.make_value_info("probability", helper.make_sequence_type_proto(kind))
    return model_bytes(
        [classifier, zipped],
        [value("X", TensorProto.FLOAT, ["N", 4])],
        [value("label", TensorProto.STRING, ["N"]), probability],
        ml=True,
    )


def test_probabilities_by_name_are_shown_with_their_names(chromium: Browser) -> None:
    with serving(flowers(), "--page") as process, visiting(chromium, url(process)) as watched:
        page = watched.page
        for place, number in enumerate([5.1, 3.5, 1.4, 0.2]):
            page.get_by_label(str(place), exact=True).fill(str(number))
        predict(page)
        answer = process.post("/score", {"data": [[5.1, 3.5, 1.4, 0.2]]}).json
        (scores,) = answer["probability"]
        best = max(scores, key=scores.get)
        assert best == answer["label"][0]
        expect(page.locator(".bars li").first).to_contain_text(best)
        expect(page.locator(".bars li").first).to_contain_text(f"{100 * scores[best]:.1f} %")
        assert page.locator(".bars li").count() == 3
        assert "/score" in str(page.locator("#curl").text_content())
        assert watched.complaints == []


def test_whole_numbers_beyond_those_of_javascript_stay_exact(chromium: Browser) -> None:
    largest = "9223372036854775807"
    with (
        serving(identity(TensorProto.INT64, ["N", 2]), "--page") as process,
        visiting(chromium, url(process)) as watched,
    ):
        page = watched.page
        page.get_by_label("0", exact=True).fill(largest)
        page.get_by_label("1", exact=True).fill("-9007199254740993")
        predict(page)
        assert json.loads(str(page.locator("#outputs pre").text_content())) == [int(largest), -9007199254740993]
        expect(page.locator("#outputs td").first).to_have_text(largest)
        assert largest in str(page.locator("#python").text_content())


def test_numbers_that_are_no_scores_are_not_ranked(chromium: Browser) -> None:
    content = identity(TensorProto.FLOAT, ["N", 3])
    with serving(content, "--page") as process, visiting(chromium, url(process)) as watched:
        page = watched.page
        for place, number in enumerate(["12.5", "-3", "40"]):
            page.get_by_label(str(place), exact=True).fill(number)
        predict(page)
        assert page.locator(".bars").count() == 0
        assert page.locator("#outputs td.value").all_inner_texts() == ["12.5", "-3", "40"]


def test_what_is_neither_true_nor_false_is_refused(chromium: Browser) -> None:
    with (
        serving(identity(TensorProto.BOOL, ["N", 1]), "--page") as process,
        visiting(chromium, url(process)) as watched,
    ):
        page = watched.page
        page.get_by_label("value").fill("yes")
        page.get_by_role("button", name="Predict").click()
        expect(page.get_by_role("alert")).to_contain_text("'yes', expected true or false")


def test_texts_with_every_kind_of_quote_reach_the_model_from_python_and_curl(chromium: Browser, tmp_path: Path) -> None:
    text = "it's '''quoted''' \\ \"twice\" \u2028 ü"
    with (
        serving(identity(TensorProto.STRING, ["N", 1]), "--page") as process,
        visiting(chromium, url(process)) as watched,
    ):
        page = watched.page
        page.get_by_label("value").fill(text)
        command, program = (str(page.locator(f"#{name}").text_content()) for name in ("curl", "python"))
        done = subprocess.run(["bash", "-c", f"{command} -s"], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["outputs"][0]["data"] == [text]
        body = program[program.index("body = ") : program.index("answer = ")]
        printed = f"{body}\nimport json\nprint(json.dumps(body))"
        ran = subprocess.run([sys.executable, "-c", printed], capture_output=True, text=True, check=True)
        assert process.post("/v2/models/m/infer", json.loads(ran.stdout)).json["outputs"][0]["data"] == [text]


def test_a_large_request_can_be_saved_for_the_command_that_names_its_file(chromium: Browser, tmp_path: Path) -> None:
    with serving(identity(TensorProto.FLOAT, [1, 3, 64, 64]), "--page") as process:
        with visiting(chromium, url(process)) as watched:
            page = watched.page
            page.get_by_role("button", name="random").click()
            with page.expect_download() as download:
                page.get_by_role("button", name="Save request.json").click()
            download.value.save_as(tmp_path / "request.json")
            command = str(page.locator("#curl").text_content())
            predict(page)
            expect(page.locator("#outputs .note")).to_contain_text("12288 elements, from ")
        done = subprocess.run(["bash", "-c", f"{command} -s"], capture_output=True, check=True, cwd=tmp_path)
        sent = json.loads((tmp_path / "request.json").read_text())["inputs"][0]["data"]
        assert json.loads(done.stdout)["outputs"][0]["data"] == pytest.approx(sent, rel=1e-6)


def test_the_graph_is_shown_where_a_token_is_wanted(chromium: Browser, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    content = model_bytes(
        [node("Sigmoid", ["x"], ["y"])], [value("x", TensorProto.FLOAT, ["N"])], [value("y", TensorProto.FLOAT, ["N"])]
    )
    with (
        serving(content, "--page", "--token-file", str(tmp_path / "token")) as process,
        entering(chromium, url(process), "s3cret") as page,
    ):
        page.get_by_role("button", name="Show the graph").click()
        graph = page.frame_locator("#graph-frame")
        expect(graph.locator("svg").get_by_text("Sigmoid", exact=True)).to_be_visible(timeout=20_000)


def test_a_script_is_asked_with_the_sample_that_it_declares(chromium: Browser, tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("def init():\n    pass\n\ndef run(raw_data):\n    return {'heard': raw_data}\n")
    content = identity()
    with (
        serving(content, "--page", "--script", str(tmp_path / "score.py")) as process,
        visiting_script(chromium, url(process)) as page,
    ):
        body = page.get_by_label("Body, as the script's run() takes it")
        body.fill('{"data": [[7]]}')
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#outputs pre")).to_contain_text("heard")
        expect(page.locator("#outputs pre")).to_contain_text("[[7]]")


class visiting_script:
    """A page without a table of tensors."""

    def __init__(self, started: Browser, address: str) -> None:
        self.context = started.new_context()
        self.address = address

    def __enter__(self) -> Page:
        page = self.context.new_page()
        page.goto(self.address)
        page.wait_for_selector("#input-body")
        return page

    def __exit__(self, *_: object) -> None:
        self.context.close()


def test_quantised_weights_compiled_parts_and_training_graphs_are_not_sent(tmp_path: Path) -> None:
    small = np.arange(1, 13, dtype=np.int8).reshape(4, 3)
    compiled = node("EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context=b"\x07weights" * 400)
    graph = helper.make_graph([compiled], "g", [], [], [numpy_helper.from_array(small, "q")])
    model = helper.make_model(graph)
    learnt = numpy_helper.from_array(np.full(9, 0.625, np.float32), "learnt")
    model.training_info.add().initialization.initializer.append(learnt)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    sent = structure(tmp_path / "m.onnx")
    found = onnx.load_model_from_string(sent)
    assert [(t.name, list(t.dims)) for t in found.graph.initializer] == [("q", [4, 3])]
    assert small.tobytes() not in sent
    assert b"\x07weights" not in sent
    assert np.full(9, 0.625, np.float32).tobytes() not in sent
