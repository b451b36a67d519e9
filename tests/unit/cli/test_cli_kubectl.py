"""How ``kubectl onnx`` runs kubectl: whatever that program does, the command ends and says what went wrong."""

import os
from pathlib import Path

import pytest

from onnx_operator.cli import kubectl as running
from onnx_operator.cli.kubectl import Kubectl, KubectlError


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a program that is found as kubectl."""

    def make(script: str) -> Kubectl:
        path = tmp_path / "kubectl"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return Kubectl()

    return make


def refused(kubectl: Kubectl, *arguments: str) -> KubectlError:
    with pytest.raises(KubectlError) as error:
        kubectl.run(*(arguments or ("get", "x")), verb="get", resource="onnxmodels.onnx-operator.dev")
    assert error.value.exit_code == 2
    return error.value


def test_who_has_no_kubectl_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "kubectl is not on the PATH" in refused(Kubectl()).message


def test_what_is_no_program_is_told(program) -> None:
    kubectl = program("")
    Path(os.environ["PATH"].split(os.pathsep)[0], "kubectl").write_bytes(b"\x7fELF nonsense")
    assert "cannot be run" in refused(kubectl).message


def test_values_reach_kubectl_as_one_word_each_and_no_shell(program, tmp_path: Path) -> None:
    kubectl = program(f'for word in "$@"; do printf "%s\\0" "$word" >> {tmp_path}/words; done; cat')
    odd = "a b;$(touch x)\n--all"
    there = Kubectl(namespace="--all-namespaces", context=odd, kubeconfig="-")
    assert there.run("get", "--", odd, verb="get", resource="x", given=b"{}" * 100_000) == b"{}" * 100_000
    words = (tmp_path / "words").read_text().split("\0")[:-1]
    assert words[:6] == ["get", "--", odd, "--namespace=--all-namespaces", f"--context={odd}", "--kubeconfig=-"]
    assert kubectl.options() == []


def test_a_kubectl_that_hangs_is_ended(program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(running, "SECONDS", 1.0)
    error = refused(program(f"echo $$ > {tmp_path}/pid; echo 'open this page' >&2; exec sleep 1000"))
    assert "within 1 s" in error.message
    assert "open this page" in error.message
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_kubectl_that_closes_its_output_and_stays_is_ended(program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SECONDS", 1.0)
    assert "within 1 s" in refused(program("exec >&- 2>&-; exec sleep 1000")).message


def test_an_endless_answer_is_given_up(program) -> None:
    assert "more than 64 MiB" in refused(program("exec yes")).message


def test_endless_words_are_cut(program) -> None:
    error = refused(program("head -c 10000000 /dev/zero | tr '\\0' x >&2; exit 1"))
    assert len(error.message) < 3000


@pytest.mark.parametrize(
    ("words", "told", "reason"),
    [
        (
            'Error from server (Forbidden): onnxmodels.onnx-operator.dev "m" is forbidden',
            "you may not get onnxmodels.onnx-operator.dev: ask for a Role",
            "Forbidden",
        ),
        ('Error from server (NotFound): onnxmodels.onnx-operator.dev "m" not found', '"m" not found', "NotFound"),
        ("The connection to the server localhost:1 was refused", "localhost:1 was refused", ""),
        ('error: the server doesn\'t have a resource type "onnxmodels"', "is the operator installed there?", ""),
        ("", "nothing that says why", ""),
    ],
)
def test_a_failure_is_told_with_what_was_asked(program, tmp_path: Path, words: str, told: str, reason: str) -> None:
    (tmp_path / "words").write_text(words)
    error = refused(program(f"cat {tmp_path}/words >&2; exit 1"))
    assert told in error.message
    assert error.reason == reason


def test_commands_can_be_copied() -> None:
    shown = Kubectl("team a", "prod", "/tmp/it's").shown("onnx", "history", "m")
    assert shown == """kubectl onnx history m '--namespace=team a' --context=prod '--kubeconfig=/tmp/it'"'"'s'"""
