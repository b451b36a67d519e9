"""What clients of Triton and MLServer ask for besides the Open Inference Protocol: configuration, figures, an index.

https://github.com/triton-inference-server/server/tree/main/docs/protocol: extensions "model configuration" and
"statistics" whole, of "model repository" the index; there is nothing to load or unload. Pure functions.
"""

from typing import Any

from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.dataplane.tensors import DTYPES, TensorInfo
from onnx_operator.server.errors import RequestError, quote
from onnx_operator.server.lifecycle import Lifecycle
from onnx_operator.server.metrics import Scored

Json = dict[str, Any]

_TYPES = {*DTYPES, "BF16"}
"""Those that Triton knows."""
EXTENSIONS = ["model_configuration", "statistics"]


def configuration(plane: DataPlane, most_rows: int) -> Json:
    """The model as Triton's ``ModelConfig`` in JSON. Raises :class:`RequestError` while it loads.

    Where every tensor has a first size that is free it is the batch's, of ``most_rows`` at most, and left out of the
    sizes, as Triton has it; else there is no batch, and ``max_batch_size`` is 0.
    """
    inputs = [info for info in plane.model.inputs if info.datatype and not info.optional]
    outputs = [info for info in plane.model.outputs if info.datatype]
    batched = all(info.shape and not isinstance(info.shape[0], int) for info in (*inputs, *outputs))
    return {
        "name": plane.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": most_rows if batched else 0,
        "input": [_tensor(info, batched) for info in inputs],
        "output": [_tensor(info, batched) for info in outputs],
    }


def _tensor(info: TensorInfo, batched: bool) -> Json:
    kind = "STRING" if info.datatype == "BYTES" else info.datatype if info.datatype in _TYPES else "INVALID"
    sizes = [size if isinstance(size, int) else -1 for size in info.shape]
    return {"name": info.name, "data_type": f"TYPE_{kind}", "dims": sizes[1:] if batched else sizes}


def statistics(plane: DataPlane, scored: Scored) -> Json:
    """Triton's figures of the model, as far as they are counted here; the others are 0."""
    none = {"count": 0, "ns": 0}
    answered = scored.answered + scored.failed
    nanoseconds = round(scored.seconds * 1e9)
    # How long requests took is counted for all alike.
    succeeded = nanoseconds * scored.answered // answered if answered else 0
    return {
        "model_stats": [
            {
                "name": plane.name,
                "version": plane.known_version,
                "inference_count": scored.rows,
                "execution_count": scored.runs,
                "inference_stats": {
                    "success": {"count": scored.answered, "ns": succeeded},
                    "fail": {"count": scored.failed, "ns": nanoseconds - succeeded},
                    "queue": {"count": scored.runs, "ns": round(scored.waited * 1e9)},
                    **dict.fromkeys(("compute_input", "compute_infer", "compute_output"), none),
                    **dict.fromkeys(("cache_hit", "cache_miss"), none),
                },
                "batch_stats": [],
            }
        ]
    }


def index(plane: DataPlane, lifecycle: Lifecycle, request: object) -> list[Json]:
    """The models that are here, by the body of the request; ``{"ready": true}`` leaves out what is not ready.

    Raises :class:`RequestError`.
    """
    only_ready = request.get("ready", False) if isinstance(request, dict) else None
    if not isinstance(only_ready, bool):
        raise RequestError(f'expected nothing, or {{"ready": true}} or {{"ready": false}}; got {quote(request)}')
    if only_ready and not lifecycle.ready:
        return []
    state = "READY" if lifecycle.ready else "UNLOADING" if lifecycle.draining else "LOADING"
    return [{"name": plane.name, "version": plane.known_version, "state": state, "reason": ""}]
