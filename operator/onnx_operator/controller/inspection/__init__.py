"""Asking for a verdict on a model: from the inspector, or from a pod in the model's namespace."""
