"""What `helm test` runs: the operator's Service answers that it is ready, and the cluster serves OnnxModel.

Only the standard library. Everything comes from the environment:

- READY_URL: the operator's /readyz, through its Service.
- API_URL: the API server. API_PATH: the group and version that must be served, RESOURCE: the plural that must be there.
- CREDENTIALS: folder with `token` and `ca.crt`.
- TIMEOUT_SECONDS: how long both may take together.

Exits 0 when both hold; otherwise 1, and the last line says what did not, and what to look at.
"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

PAUSE_SECONDS = 1.0
ANSWER_SECONDS = 5.0
MAX_BYTES = 1 << 20


def fetch(url: str, token: str = "", context: ssl.SSLContext | None = None) -> tuple[int, object]:
    """Status and decoded body; OSError and ValueError where there is no such answer. No proxy is asked."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if context:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    opener = urllib.request.build_opener(*handlers)
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the chart's own addresses
    try:
        with opener.open(request, timeout=ANSWER_SECONDS) as answer:
            return answer.status, json.loads(answer.read(MAX_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            body = error.read(MAX_BYTES)
        try:
            return error.code, json.loads(body)
        except ValueError:
            return error.code, body.decode(errors="replace")[:200]


def operator() -> str | None:
    """What is wrong with the operator; None for nothing."""
    status, body = fetch(os.environ["READY_URL"])
    if status != 200 or not isinstance(body, dict):
        told = body.get("status", body) if isinstance(body, dict) else body
        return f"the operator is not ready ({status}: {told}): look at its log"
    if body.get("notFollowed"):
        return f"the operator cannot follow {json.dumps(body['notFollowed'])}: look at its rights there"
    return None


def resource() -> str | None:
    """What is wrong with the resource; None for nothing."""
    folder = Path(os.environ["CREDENTIALS"])
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    url = os.environ["API_URL"] + os.environ["API_PATH"]
    status, body = fetch(url, (folder / "token").read_text().strip(), context)
    plural = os.environ["RESOURCE"]
    found = body.get("resources", []) if isinstance(body, dict) else []
    if status != 200 or plural not in [each.get("name") for each in found]:
        return f"the cluster does not serve {plural} ({status} from {url}): install its CRD (value crds.enabled)"
    return None


def wait(check: Callable[[], str | None], until: float) -> str | None:
    """Ask until nothing is wrong or the time is over; what was wrong last."""
    while True:
        try:
            problem = check()
        except (OSError, ValueError) as error:
            problem = f"{check.__name__}: no answer ({error}): look at its Service, its pods and network policies"
        if problem is None or time.monotonic() > until:
            return problem
        time.sleep(PAUSE_SECONDS)


def main() -> int:
    """Both checks, one after the other; the exit status."""
    until = time.monotonic() + float(os.environ.get("TIMEOUT_SECONDS", "60"))
    for check in (operator, resource):
        problem = wait(check, until)
        if problem:
            print(f"FAILED: {problem}")
            return 1
        print(f"ok: {check.__name__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
