"""Names of the objects that work is queued for."""

ModelKey = tuple[str, str]
"""Namespace and name of an OnnxModel."""
