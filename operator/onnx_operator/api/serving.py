"""What a spec asks of the server: the arguments of ``onnx-server serve``, in a pod as on one's own machine. Pure.

A pod is told more by who renders it: ports, the page, what its revision takes over from those before. On one's own
machine the command line of ``kubectl onnx serve`` says so.
"""

from dataclasses import dataclass

from onnx_operator.api.onnxmodel import Batching, ExecutionProvider, OnnxModelSpec, Runtime, Session
from onnx_operator.api.warm_up import WarmUpInputs


@dataclass(frozen=True)
class Places:
    """Where the server finds what goes with the model; empty for what there is none of."""

    script: str = ""
    requirements: str = ""
    test_data: str = ""


def execution_providers(spec: OnnxModelSpec) -> list[ExecutionProvider]:
    """The providers asked for, with the default applied."""
    asked = spec.session.execution_providers if spec.session else None
    if asked:
        return asked
    return [ExecutionProvider.CUDA] if spec.effective_runtime is Runtime.GPU else [ExecutionProvider.CPU]


def serve_arguments(spec: OnnxModelSpec, places: Places) -> list[str]:
    """All that the spec says of serving, but for the model's file and name; what it leaves open is not said."""
    session, batching = spec.session or Session(), spec.batching or Batching()
    warm_up = spec.warm_up.inputs() if spec.warm_up else WarmUpInputs()
    options = {
        "--version": spec.model.version,
        "--intra-op-threads": session.intra_op_threads,
        "--inter-op-threads": session.inter_op_threads,
        "--on-fallback": session.on_fallback,
        "--max-batch-size": batching.max_batch_size,
        "--max-delay-milliseconds": batching.max_delay_milliseconds,
        "--warm-up": "" if warm_up.empty else warm_up.to_text(),
        "--test-data": places.test_data,
        "--script": places.script,
        "--entry-script": spec.scoring.entry_script if spec.scoring else None,
        "--requirements-directory": places.requirements,
    }
    return [
        *(f"--execution-provider={provider.value}" for provider in execution_providers(spec)),
        *(f"{option}={value}" for option, value in options.items() if value not in (None, "")),
        *(f"--cors-allow-origin={origin}" for origin in _origins(spec)),
        *(["--assume-independent-rows"] if batching.assume_independent_rows else []),
    ]


def _origins(spec: OnnxModelSpec) -> list[str]:
    return spec.endpoint.cors.allow_origins if spec.endpoint and spec.endpoint.cors else []
