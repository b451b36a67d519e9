"""The model in ONNX Runtime: loading, warming up, testing, and what this build can run."""
