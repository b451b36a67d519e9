"""onnx-operator: a Kubernetes operator that turns an ONNX model into a production scoring service."""

import os

__version__ = "0.1.0"
# Before anything imports ONNX Runtime, which else starts a thread to report its use to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
