"""KServe's own server around ONNX Runtime, in its own environment: `… kserve_server.py MODEL HTTP_PORT GRPC_PORT`."""

import sys

import onnxruntime as ort
from kserve import InferOutput, InferResponse, Model, ModelServer


class Served(Model):
    def __init__(self, path):
        super().__init__("m")
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.ready = True

    def load(self):
        return True

    def predict(self, payload, headers=None, response_headers=None):
        asked = payload.request_outputs or []
        binary = any((output.parameters or {}).get("binary_data") for output in asked)
        binary = binary or bool((payload.parameters or {}).get("binary_data_output"))
        feed = {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
        found = self.session.run(None, feed)
        outputs = []
        for info, array in zip(self.session.get_outputs(), found, strict=True):
            output = InferOutput(name=info.name, shape=list(array.shape), datatype="FP32")
            output.set_data_from_numpy(array, binary_data=binary or payload.from_grpc)
            outputs.append(output)
        return InferResponse(response_id=payload.id or "-", model_name="m", infer_outputs=outputs)


if __name__ == "__main__":
    model, http_port, grpc_port = sys.argv[1:]
    server = ModelServer(http_port=int(http_port), grpc_port=int(grpc_port), workers=1)
    server.start([Served(model)])
