"""Options of the commands that read models: what is wrong with one is said before anything is read."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from onnx_operator.cli.__main__ import main
from tests import models


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(models.linear())
    (tmp_path / "wider.onnx").write_bytes(models.linear(features=5))
    (tmp_path / "other.onnx").write_bytes(models.linear(seed=1))
    (tmp_path / "bad.onnx").write_bytes(models.unknown_operator())
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "text").write_text("no key")
    (tmp_path / "typo.yaml").write_text("settings: {sources: {s3: {endpoint: 5}}}")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--sha256", "abc"], "'abc' is not a digest: it has 64 hex digits"),
        (["--allow-network", "intranet"], "--allow-network: 'intranet' is not a network; write it as 10.0.0.0/8"),
        (["--ca-bundle", "binary"], "--ca-bundle binary is not a PEM file"),
        (["--public-key", "binary"], "--public-key binary is not a PEM file"),
        (["--public-key", "text"], "BEGIN PUBLIC KEY"),
        (["--certificate-authority", "text"], "signatures.certificateAuthorities"),
        (["--settings", "binary"], "--settings binary is not a settings file"),
        (["--settings", "typo.yaml"], "s3.endpoint: "),
        (["--output", "yaml"], "'yaml' is not one of 'text', 'json'"),
    ],
)
def test_a_wrong_option_is_named_with_what_was_expected(folder: Path, options: list[str], told: str) -> None:
    done = run("inspect", "m.onnx", *options)
    assert done.exit_code == 2
    assert told in done.stderr
    assert "Traceback" not in done.output


def test_the_operators_settings_count_and_options_override_them(folder: Path) -> None:
    (folder / "values.yaml").write_text(
        'settings: {sources: {s3: {endpoint: "http://127.0.0.1:1"}, connectTimeoutSeconds: 0.5}}'
    )
    for options, told in (
        ([], "http://127.0.0.1:1"),
        (["--s3-endpoint", "ftp://127.0.0.1:2"], "ftp://127.0.0.1:2"),
    ):
        done = run("inspect", "s3://bucket/m.onnx", "--settings", "values.yaml", *options)
        assert done.exit_code == 2
        assert told in done.stdout


def test_versions_that_callers_would_not_notice(folder: Path) -> None:
    done = run("diff", "m.onnx", "other.onnx")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == "Callers go on as before."
    assert "digest" in done.stdout


def test_a_version_that_breaks_callers_ends_with_1_and_names_the_input(folder: Path) -> None:
    done = run("diff", "m.onnx", "wider.onnx")
    assert done.exit_code == 1, done.output
    assert 'breaks  input "x" had the shape [batch, 4], has [batch, 5]' in done.stdout.splitlines()

    told = json.loads(run("diff", "m.onnx", "wider.onnx", "--output", "json").stdout)
    assert told == {
        "compatible": False,
        "changes": [{"text": 'input "x" had the shape [batch, 4], has [batch, 5]', "breaking": True}],
    }


@pytest.mark.parametrize("pair", [("m.onnx", "bad.onnx"), ("bad.onnx", "m.onnx"), ("m.onnx", "none.onnx")])
def test_what_cannot_be_compared_ends_with_2_and_says_which_and_why(folder: Path, pair: tuple[str, str]) -> None:
    done = run("diff", *pair)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert next(name for name in pair if name != "m.onnx") in done.stderr


def test_into_a_pipe_no_line_ends_with_blanks(folder: Path) -> None:
    for arguments in (["inspect", "m.onnx"], ["diff", "m.onnx", "wider.onnx"]):
        assert all(line == line.rstrip() for line in run(*arguments).stdout.splitlines())
