"""Requests to a server of either kind, and answers as they are written down."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.clients.azureml.scripts import MODEL_FILES, Ask, Script

_IDS = ("x-ms-request-id", "x-ms-client-request-id", "TraceId")
RECORDED = Path(__file__).with_name("recorded.json")


@dataclass(frozen=True)
class Told:
    """An answer: its media type, whether it says that the script failed, and the body, a character a byte."""

    status: int
    kind: str
    failed: str
    body: str
    ids: str = ""
    """What it repeats of the ids that the request carried."""

    @property
    def message(self) -> str | None:
        """The text of an error; None in what is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return None
        return found.get("message") if isinstance(found, dict) else None


def ask(port: int, question: Ask) -> Told:
    """Send one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(question.method, question.target, question.content or None, dict(question.headers))
        answer = connection.getresponse()
        body = answer.read().decode("latin-1")
        kind = (answer.getheader("Content-Type") or "").partition(";")[0]
        carried = [name for name in _IDS if name in question.headers]
        ids = " ".join(f"{name}={answer.getheader(name)}" for name in (_IDS if carried else ()))
        return Told(answer.status, kind, answer.getheader("x-ms-run-function-failed") or "", body, ids)
    finally:
        connection.close()


def asked(port: int, script: Script) -> dict[str, Any]:
    """What a server answers to all requests of a script, as it is written down."""
    return {name: asdict(ask(port, question)) for name, question in script.asks.items()}


def lay_out(folder: Path, script: Script) -> tuple[Path, Path]:
    """Write a script and a model's folder; returns both."""
    root, models = folder / "app", folder / "models"
    texts: Mapping[Path, str] = {root / name: text for name, text in script.files.items()}
    for path, text in {**texts, **{models / name: "" for name in MODEL_FILES}}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root, models


def recorded() -> dict[str, Any]:
    """What was written down."""
    found: dict[str, Any] = json.loads(RECORDED.read_text())
    return found
