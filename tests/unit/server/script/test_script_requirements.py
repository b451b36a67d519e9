"""A script's requirements are pinned, installed once, and their failure names the one at fault."""

import http.server
import json
import logging
import subprocess
import sys
import threading
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from onnx_operator.server.script import requirements
from onnx_operator.server.script.pins import PinError, Pins, read_pins
from onnx_operator.server.script.requirements import install
from tests.unit.model.webkit import make_authority
from tests.unit.server.script.test_script_host import ask, hosting, write


@pytest.mark.parametrize(
    "text", ["pillow", "pillow>=11", "pillow==11.*", "pillow==11,!=11.1", "pillow @ file:///x", "--index-url=x", "-e ."]
)
def test_only_pinned_requirements_are_taken(text: str) -> None:
    with pytest.raises(PinError, match="expected NAME==VERSION"):
        read_pins([text])


def test_pins_are_sorted_and_no_package_is_required_twice(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# ours\nPillow==11.0.0  # images\n\nnumpy==1.26.4 ; python_version > '3'\n")
    assert read_pins(["a==1"], [file]).pins == ("Pillow==11.0.0", "a==1", 'numpy==1.26.4; python_version > "3"')
    with pytest.raises(PinError, match=r"pillow is required twice: pillow==10.0.0 and Pillow==11.0.0"):
        read_pins(["pillow==10.0.0"], [file])
    file.write_text("a==1\nb>=2\n")
    with pytest.raises(PinError, match=r"requirements.txt, line 2: 'b>=2' may mean another version"):
        read_pins([], [file])


CONDA = """\
# Conda environment specification, as Azure ML's CondaDependencies wrote it.
name: project_environment
dependencies:
  # The python interpreter version.
- python=3.6.2

- pip:
  - numpy
  - onnxruntime
  - azureml-core
  - azureml-defaults==1.0.17
  - "pillow==11.0.0"
- scikit-learn=0.20
channels:
- conda-forge
"""


def test_the_pip_part_of_a_conda_file_of_2018_is_taken_and_the_rest_is_told(tmp_path: Path) -> None:
    file = tmp_path / "myenv.yml"
    file.write_text(CONDA)
    found = read_pins([], [], [file], {"numpy": "2.4.6", "onnxruntime": "1.32.0"}.get)
    assert found.pins == ("pillow==11.0.0",)
    notes = "\n".join(found.notes)
    assert "python=3.6.2: the script runs on Python 3." in notes
    assert "onnxruntime: not pinned, the server's 1.32.0 is used" in notes
    assert "azureml-core: left out, the server has what" in notes
    assert "scikit-learn=0.20: left out, a conda package" in notes
    assert "conda-forge" not in notes
    with pytest.raises(PinError, match=r"myenv.yml: 'numpy' may mean another version"):
        read_pins([], [], [file])


def wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    wheel(folder, "greeting", "1.0", "language==2.0")
    wheel(folder, "language", "2.0")
    wheel(folder, "language", "3.0")
    wheel(folder, "numpy", "1.16.2")
    return folder


async def test_the_script_sees_its_own_packages_and_the_server_does_not(index: Path, tmp_path: Path) -> None:
    target = tmp_path / "requirements"
    assert requirements.run(target, ["greeting==1.0", "numpy==1.16.2"]) == 0
    settings = write(
        tmp_path,
        """
        import greeting, language, numpy
        def init(): pass
        def run(raw_data): return [greeting.VERSION, language.VERSION, numpy.VERSION]
        """,
    )
    async with hosting(replace(settings, requirements=target)) as host:
        assert json.loads((await ask(host)).body) == ["1.0", "2.0", "1.16.2"]
    assert "greeting" not in sys.modules


def test_a_second_start_installs_nothing_and_other_pins_install_anew(
    index: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    target = tmp_path / "requirements"
    install(target, Pins(("language==2.0",)))
    caplog.clear()
    (index / "language-2.0-py3-none-any.whl").unlink()
    install(target, Pins(("language==2.0",)))
    assert "installing" not in [record.getMessage() for record in caplog.records]
    install(target, Pins(("language==3.0",)))
    assert [path.name for path in target.glob("site-packages/*.dist-info")] == ["language-3.0.dist-info"]


def test_an_interrupted_installation_is_done_again(index: Path, tmp_path: Path) -> None:
    target = tmp_path / "requirements"
    install(target, Pins(("language==2.0",)))
    (target / requirements.MARKER).unlink()
    (target / ".incoming").mkdir()
    install(target, Pins(("language==2.0",)))
    assert (target / "site-packages" / "language.py").exists()


@pytest.mark.parametrize(
    ("pins", "named"),
    [
        (["language==9.9"], "language==9.9"),
        (["greeting==1.0", "language==3.0"], "greeting 1.0 depends on language==2.0"),
    ],
)
def test_a_failure_names_the_requirement_in_the_termination_message(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pins: list[str], named: str
) -> None:
    message = tmp_path / "termination"
    monkeypatch.setenv("ONNX_TERMINATION_LOG", str(message))
    assert requirements.run(tmp_path / "requirements", pins) == 1
    told = json.loads(message.read_text())
    assert (told["phase"], told["reason"]) == ("Downloading", "DownloadFailed")
    assert named in told["message"]
    assert not (tmp_path / "requirements" / "site-packages").exists()


def test_an_image_without_pip_installs_too(index: Path, tmp_path: Path) -> None:
    """As the server image: an environment made without pip, on a Python that brings it."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    paths = [path for path in sys.path if path]
    script = (
        f"import sys, importlib.util as u; sys.path += {[p for p in paths if 'site-packages' not in p]!r}\n"
        "assert u.find_spec('pip') is None\n"
        f"sys.path += {paths!r}; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'pip' else real(name, *a)\n"
        "from pathlib import Path\n"
        "from onnx_operator.server.script.requirements import run\n"
        f"raise SystemExit(run(Path({str(tmp_path / 'requirements')!r}), ['language==3.0']))\n"
    )
    python = environment / "bin" / "python"
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "requirements" / "site-packages" / "language.py").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        install(tmp_path / "file" / "requirements", Pins(("language==2.0",)))
    assert requirements.run(tmp_path / "file" / "requirements", ["language==2.0"]) == 1


def test_a_secret_of_the_index_is_not_told(tmp_path: Path) -> None:
    assert requirements._tail("Looking in https://user:token@host/simple\n x") == "Looking in https://…@host/simple x"


def test_an_index_that_cannot_be_reached_is_not_a_missing_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = tmp_path / "termination"
    monkeypatch.setenv("ONNX_TERMINATION_LOG", str(message))
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:token@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    assert requirements.run(tmp_path / "requirements", ["language==2.0"]) == 1
    told = json.loads(message.read_text())["message"]
    assert "the package index cannot be used for language==2.0" in told
    assert "refused" in told
    assert "token" not in told


def _outside(monkeypatch: pytest.MonkeyPatch, folder: Path, **files: str) -> None:
    """Say how the outside is reached, as it is mounted."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("ca_crt", "ca.crt")).write_text(text)
    monkeypatch.setenv("ONNX_EGRESS_DIRECTORY", str(folder))
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_CERT", "PIP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    # What the machine of the test has set wins, as a variable of the pod would.
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class _Index(http.server.BaseHTTPRequestHandler):
    """A package index with one wheel."""

    wheel = b""
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = "language-2.0-py3-none-any.whl"
        body = self.wheel if self.path.endswith(name) else f'<a href="/{name}">{name}</a>'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/zip" if body is self.wheel else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def indexed(tmp_path: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    wheel(tmp_path, "language", "2.0")
    handler = type(
        "Index", (_Index,), {"wheel": (tmp_path / "language-2.0-py3-none-any.whl").read_bytes(), "asked": []}
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_index_is_asked_by_the_proxy_that_the_platform_gives(
    indexed: http.server.ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The index is its own proxy here: whoever asks one for plain http names the whole address.
    _outside(monkeypatch, tmp_path / "egress", HTTP_PROXY=f"http://127.0.0.1:{indexed.server_port}")
    monkeypatch.setenv("PIP_INDEX_URL", "http://packages.invalid/simple")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "packages.invalid")
    assert requirements.run(tmp_path / "requirements", ["language==2.0"]) == 0
    assert "http://packages.invalid/simple/language/" in indexed.RequestHandlerClass.asked  # type: ignore[attr-defined]


def test_an_index_with_a_private_authority_is_believed_where_the_platform_says_so(
    indexed: http.server.ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = make_authority(tmp_path)
    indexed.socket = authority.server.wrap_socket(indexed.socket, server_side=True)
    monkeypatch.setenv("PIP_RETRIES", "0")
    _outside(monkeypatch, tmp_path / "egress")
    monkeypatch.setenv("PIP_INDEX_URL", f"https://localhost:{indexed.server_port}/simple")
    assert requirements.run(tmp_path / "requirements", ["language==2.0"]) == 1
    (tmp_path / "egress" / "ca.crt").write_text(authority.pem)
    assert requirements.run(tmp_path / "requirements", ["language==2.0"]) == 0


def test_a_wrong_proxy_is_told_by_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _outside(monkeypatch, tmp_path / "egress", HTTPS_PROXY="nonsense:hunter2")
    message = tmp_path / "termination"
    monkeypatch.setenv("ONNX_TERMINATION_LOG", str(message))
    assert requirements.run(tmp_path / "requirements", ["language==2.0"]) == 1
    told = json.loads(message.read_text())["message"]
    assert "HTTPS_PROXY" in told
    assert "hunter2" not in told
