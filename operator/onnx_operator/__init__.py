"""onnx-operator: a Kubernetes operator that turns an ONNX model into a production scoring service."""

__version__ = "0.1.0"
