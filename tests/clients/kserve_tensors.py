"""What both of kserve's clients say and hear, from a job's arrays and to them."""

from typing import Any

from kserve import InferInput, InferRequest
from kserve.protocol.infer_type import RequestedOutput
from lockstep import Job


def request_of(job: Job, binary: bool, **parameters: bool) -> InferRequest:
    """A request whose tensors are all binary, or none; ``parameters`` are those of its outputs."""
    inputs = []
    for name, datatype, array in job["inputs"]:
        tensor = InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    told = {"parameters": parameters} if parameters else {}
    outputs = [RequestedOutput(name, **told) for name in job["outputs"]]
    return InferRequest("m", inputs, request_id=job["name"], request_outputs=outputs)


def results_of(job: Job, answer: Any) -> dict[str, Any]:
    """The outputs' datatypes and arrays by name."""
    assert answer.id == job["name"]
    assert [output.name for output in answer.outputs] == job["outputs"]
    return {output.name: (output.datatype, output.as_numpy()) for output in answer.outputs}
