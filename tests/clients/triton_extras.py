"""tritonclient over HTTP, besides inferences as they are: python triton_extras.py HTTP_PORT. Prints JSON."""

import json
import sys

import numpy as np
import tritonclient.http as triton

client = triton.InferenceServerClient(f"127.0.0.1:{sys.argv[1]}")
rows = np.arange(4000, dtype=np.float32).reshape(-1, 4)
tensor = triton.InferInput("x", list(rows.shape), "FP32")
answers = {}
for binary in (True, False):
    tensor.set_data_from_numpy(rows, binary_data=binary)
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
    for request in (None, "gzip", "deflate"):
        for response in (None, "gzip", "deflate"):
            found = client.infer(
                "linear",
                [tensor],
                model_version="1",
                outputs=outputs,
                request_compression_algorithm=request,
                response_compression_algorithm=response,
            )
            answers[f"{binary} {request} {response}"] = float(np.abs(found.as_numpy("y") - rows[:, :3]).max())
print(
    json.dumps(
        {
            "answers": answers,
            "config": client.get_model_config("linear", "1"),
            "statistics": client.get_inference_statistics("linear"),
            "all": client.get_inference_statistics(),
            "index": client.get_model_repository_index(),
            "metadata": client.get_model_metadata("linear", "1"),
            "ready": client.is_model_ready("linear", "1"),
        }
    )
)
