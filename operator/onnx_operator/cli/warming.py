"""``inspect --warm-up``: the first runs that a pod makes, on this machine, in a process that the model may end."""

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from onnx_operator.api.contract import MAX_KILLS
from onnx_operator.api.sources import ApiModel
from onnx_operator.api.warm_up import WarmUpInputs

MAX_SECONDS = 600
"""Of one start, loading included: far above what a warm-up takes, which bounds itself."""
_STARTS = MAX_KILLS + 2
"""As a pod is started again after a kill: with notes of what ran, until made-up inputs are given up."""


class Warmth(ApiModel):
    """What the first runs showed. ``Unwarmed``: a pod would serve all the same, its requests one by one."""

    outcome: Literal["Warmed", "Unwarmed", "Failed"]
    message: str
    inputs: WarmUpInputs | None = None
    """What the model answered, as ``spec.warmUp`` takes it."""
    batching: str = ""
    """Empty where requests may share a run, else why not."""
    seconds: dict[int, float] = Field(default_factory=dict)
    """Seconds of a run by its rows."""

    @classmethod
    def failed(cls, message: str) -> Self:
        """A pod would not become ready."""
        return cls(outcome="Failed", message=message)


def warm(path: Path) -> Warmth:
    """Load the model at ``path`` and warm it up as a pod does, starting again where that ends the process."""
    with tempfile.TemporaryDirectory(prefix="onnx-warm-up-") as state:
        for _ in range(_STARTS):
            command = [sys.executable, "-m", "onnx_operator.cli.warming", str(path), state]
            try:
                done = subprocess.run(command, stdout=subprocess.PIPE, timeout=MAX_SECONDS, check=False)  # noqa: S603
            except subprocess.TimeoutExpired:
                return Warmth.failed(f"loading it and its first runs took more than {MAX_SECONDS} s")
            if done.returncode == 0:
                return Warmth.model_validate_json(done.stdout)
        return Warmth.failed(f"each of {_STARTS} starts was ended {_how(done.returncode)}")


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    # Signals of real time have no names.
    named = -code in {each.value for each in signal.Signals}
    return f"by {signal.Signals(-code).name if named else f'signal {-code}'}"


def _warm_here(path: Path, state: Path) -> Warmth:
    from onnx_operator.server.errors import StartError
    from onnx_operator.server.runtime.attempts import Attempts
    from onnx_operator.server.runtime.finding import Sources
    from onnx_operator.server.runtime.session import SessionSettings, load
    from onnx_operator.server.runtime.threads import available_cpus
    from onnx_operator.server.runtime.warmup import warm_up
    from onnx_operator.server.serve import ServeSettings

    try:
        model = load(path, SessionSettings(("CPU",), available_cpus()))
        rows = ServeSettings(path, "model").max_batch_size
        found = warm_up(model, rows, sources=Sources(attempts=Attempts(state)))
    except StartError as error:
        return Warmth.failed(str(error))
    return Warmth(
        outcome="Warmed" if found.warmed else "Unwarmed",
        message=found.message,
        inputs=found.recipe,
        batching="" if found.batchable else found.reason,
        seconds=found.seconds,
    )


def main() -> None:
    """``python -m onnx_operator.cli.warming MODEL STATE``: what :func:`warm` runs; JSON of :class:`Warmth`."""
    path, state = map(Path, sys.argv[1:])
    print(json.dumps(_warm_here(path, state).model_dump(mode="json", by_alias=True, exclude_none=True)))


if __name__ == "__main__":
    main()
