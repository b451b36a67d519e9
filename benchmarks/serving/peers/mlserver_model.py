"""ONNX Runtime as a runtime of MLServer, for its own environment."""

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Served(MLModel):
    async def load(self):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(self.settings.parameters.uri, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload):
        feed = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        found = self.session.run(None, feed)
        outputs = [
            NumpyCodec.encode_output(info.name, array)
            for info, array in zip(self.session.get_outputs(), found, strict=True)
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
