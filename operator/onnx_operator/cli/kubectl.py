"""Runs ``kubectl``, which knows how a cluster is reached: never through a shell, with bounded output and time."""

import os
import re
import selectors
import shlex
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass

import click

REQUEST_SECONDS = 30
"""For one request to the API server."""
SECONDS = 90.0
"""For one run of kubectl, with whatever it asks for keys."""
MAX_ANSWER_BYTES = 64 << 20
MAX_WORDS = 2000
"""Bytes of what kubectl says of a failure."""
_CHUNK_BYTES = 1 << 16
_REFUSAL = re.compile(r"Error from server \((\w{1,64})\): ")


class KubectlError(click.ClickException):
    """The cluster could not be asked, or refused; ``reason`` is the API server's word for it, where it is known."""

    exit_code = 2

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Kubectl:
    """kubectl, told which cluster and namespace; what is empty is as its configuration says."""

    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""
    program: str = "kubectl"

    def in_namespace(self, namespace: str) -> "Kubectl":
        """The same in a namespace."""
        return Kubectl(namespace, self.context, self.kubeconfig, self.program)

    def options(self) -> list[str]:
        """The options that lead to this cluster and namespace."""
        given = {"namespace": self.namespace, "context": self.context, "kubeconfig": self.kubeconfig}
        # As one word: a value that begins with a hyphen is no option of its own.
        return [f"--{name}={value}" for name, value in given.items() if value]

    def shown(self, *arguments: str) -> str:
        """A command for people to copy."""
        return shlex.join(["kubectl", *arguments, *self.options()])

    def run(self, *arguments: str, verb: str, resource: str, given: bytes = b"") -> bytes:
        """What kubectl prints. ``given`` is its standard input.

        Args:
            arguments: of kubectl, without those of :meth:`options`.
            verb: what the API server is asked to do, as its access rules call it.
            resource: with what, the same.
            given: what kubectl reads.

        Raises:
            KubectlError: it is missing, fails, prints too much or takes too long.
        """
        found = shutil.which(self.program)
        if found is None:
            raise KubectlError(
                f"{self.program} is not on the PATH: the cluster is asked through it; install it "
                "(https://kubernetes.io/docs/tasks/tools/)"
            )
        about = f"{verb} {resource}"
        command = [found, *arguments, *self.options(), f"--request-timeout={REQUEST_SECONDS}s"]
        code, answer, words = _bounded(command, given, about)
        if code:
            raise self._failure(" ".join(words.decode(errors="replace").split()), verb, resource)
        return answer

    def _failure(self, words: str, verb: str, resource: str) -> KubectlError:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        refusal = _REFUSAL.search(words)
        reason = refusal[1] if refusal else ""
        if reason == "Forbidden":
            advice = f"ask for a Role that allows {verb} on {resource}"
            return KubectlError(f"you may not {verb} {resource}{where}: {advice}. kubectl says: {words}", reason)
        if "doesn't have a resource type" in words:
            return KubectlError(
                f"the cluster does not know {resource}: is the operator installed there? kubectl says: {words}"
            )
        told = words or "nothing that says why"
        return KubectlError(f"kubectl could not {verb} {resource}{where}: {told}", reason)


def _bounded(command: list[str], given: bytes, about: str) -> tuple[int, bytes, bytes]:
    """The exit code of a command, and what it prints to its two streams."""
    deadline = time.monotonic() + SECONDS
    with tempfile.TemporaryFile() as stdin:
        stdin.write(given)
        stdin.seek(0)
        try:
            process = subprocess.Popen(  # noqa: S603 - a list of arguments, and a program of the user's own PATH
                command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except (OSError, ValueError) as error:
            raise KubectlError(f"{command[0]} cannot be run: {error}") from None
    with process:
        try:
            answer, words = _read(process, deadline, about)
            return process.wait(max(0.1, deadline - time.monotonic())), answer, words
        except subprocess.TimeoutExpired:
            raise _too_long(about, b"") from None
        finally:
            process.kill()


def _too_long(about: str, words: bytes) -> KubectlError:
    told = " ".join(words.decode(errors="replace").split())
    more = f" kubectl says: {told}" if told else ""
    return KubectlError(f"kubectl did not {about} within {SECONDS:.0f} s; is the cluster reachable?{more}")


def _read(process: "subprocess.Popen[bytes]", deadline: float, about: str) -> tuple[bytes, bytes]:
    assert process.stdout is not None
    assert process.stderr is not None
    answer, words = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, (answer, MAX_ANSWER_BYTES))
        selector.register(process.stderr, selectors.EVENT_READ, (words, MAX_WORDS))
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise _too_long(about, bytes(words))
            for key, _ in selector.select(left):
                chunk = os.read(key.fd, _CHUNK_BYTES)
                kept, most = key.data
                if not chunk:
                    selector.unregister(key.fileobj)
                elif kept is answer and len(kept) + len(chunk) > most:
                    raise KubectlError(f"kubectl's answer to {about} has more than {most >> 20} MiB")
                else:
                    kept += chunk[: max(0, most - len(kept))]
    return bytes(answer), bytes(words)
