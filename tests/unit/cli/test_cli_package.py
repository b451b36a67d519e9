"""``kubectl onnx package`` makes an image of a scoring script: its context, and a build by what is installed."""

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnx_operator.cli.package import PackageError, find_builder, package


@pytest.fixture
def scoring(tmp_path: Path) -> Path:
    folder = tmp_path / "scoring"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "__pycache__" / "score.pyc").write_text("")
    (folder / "score.py").write_text("def init(): pass\ndef run(raw_data): return 1\n")
    (folder / "labels.txt").write_text("cat\n")
    return folder


def call(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(package, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_context_holds_script_and_packages_and_not_the_model(tmp_path: Path, scoring: Path) -> None:
    context = tmp_path / "context"
    said = call(scoring, "--from", "example.com/onnx-server:1", "--requirement", "pillow==11.0.0", "--context", context)
    assert tree(context) == ["Dockerfile", "requirements.txt", "scoring/labels.txt", "scoring/score.py"]
    assert (context / "requirements.txt").read_text() == "pillow==11.0.0\n"
    lines = (context / "Dockerfile").read_text().splitlines()
    assert "FROM example.com/onnx-server:1" in lines
    assert lines[-1].startswith("ENV ONNX_SERVER_SERVE_SCRIPT=/opt/scoring ONNX_SERVER_SERVE_REQUIREMENTS=")
    # What the container runs as is the last word on the user.
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 65532:65532"
    assert "docker build --tag" in said
    assert "scoring:\n    image:" in said


def test_the_model_goes_in_when_asked_and_a_second_run_replaces_the_first(tmp_path: Path, scoring: Path) -> None:
    context = tmp_path / "context"
    model = tmp_path / "mnist.onnx"
    model.write_bytes(b"model")
    call(scoring, "--from", "server", "--requirement", "a==1", "--context", context)
    call(scoring / "score.py", "--from", "server", "--with-model", model, "--context", context)
    assert tree(context) == ["Dockerfile", "model/mnist.onnx", "scoring/score.py"]
    assert "ONNX_SERVER_SERVE_MODEL=/opt/model/mnist.onnx" in (context / "Dockerfile").read_text()


def test_an_entry_script_in_a_folder_is_named_for_the_server(tmp_path: Path, scoring: Path) -> None:
    (scoring / "src").mkdir()
    (scoring / "src" / "main.py").write_text("def init(): pass\ndef run(data): pass\n")
    context = tmp_path / "context"
    call(scoring, "--from", "server", "--entry-script", "src/main.py", "--context", context)
    assert "scoring/src/main.py" in tree(context)
    assert "ONNX_SERVER_SERVE_ENTRY_SCRIPT=src/main.py" in (context / "Dockerfile").read_text()
    said = call(scoring, "--from", "server", "--entry-script", "src/other.py", "--context", context, code=1)
    assert "holds no script src/other.py" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--requirement", "pillow"], "expected NAME==VERSION"),
        (["--build"], "--build needs --tag"),
        (["--from", "two words"], "is not the name of an image"),
        (["--with-model", "."], "must hold one .onnx file, it holds: none"),
    ],
)
def test_what_cannot_be_made_is_said_before_anything_is_built(
    tmp_path: Path, scoring: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(scoring)
    said = call(
        scoring, "--from", "server", "--context", tmp_path / "c", *arguments, code=2 if "--build" in arguments else 1
    )
    assert message in said


def test_other_peoples_files_are_left_alone(tmp_path: Path, scoring: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "precious").write_text("")
    assert "holds other files" in call(scoring, "--from", "s", "--context", tmp_path / "context", code=1)
    assert "choose another --context" in call(scoring, "--from", "s", "--context", scoring / "context", code=1)


def test_a_folder_without_a_script_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "expected score.py" in call(tmp_path / "empty", "--from", "s", "--context", tmp_path / "c", code=1)


def test_the_first_builder_that_is_installed_is_taken() -> None:
    assert find_builder(None, {"docker": "x", "podman": "x"}.get) == ("podman", "build")
    assert find_builder("docker", {"docker": "x", "podman": "x"}.get) == ("docker", "build")
    with pytest.raises(PackageError, match="none of buildah, podman, docker"):
        find_builder(None, lambda name: None)


@pytest.mark.parametrize("code", [0, 3])
def test_the_builder_gets_the_context_and_its_failure_is_ours(
    tmp_path: Path, scoring: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    bin_folder, context, seen = tmp_path / "bin", tmp_path / "context", tmp_path / "seen"
    bin_folder.mkdir()
    program = bin_folder / "buildah"
    program.write_text(f'#!/bin/sh\necho "$@" > {seen}\nexit {code}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{bin_folder}:/bin")
    said = call(
        scoring,
        "--from",
        "s",
        "--context",
        context,
        "--build",
        "--tag",
        "me/m:1",
        "--build-option=--no-cache",
        code=bool(code),
    )
    assert seen.read_text().split() == [
        "bud",
        "--no-cache",
        "--tag",
        "me/m:1",
        "--file",
        f"{context}/Dockerfile",
        str(context),
    ]
    assert ("buildah bud failed with exit code 3" in said) is bool(code)
