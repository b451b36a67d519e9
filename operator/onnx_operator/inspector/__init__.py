"""The sidecar that looks at models, without any cluster token, and the controller's way to it.

Nothing here imports kubernetes.
"""

from onnx_operator.inspector.client import InspectorClient

__all__ = ["InspectorClient"]
