"""The kubectl plugin ``kubectl onnx``."""
