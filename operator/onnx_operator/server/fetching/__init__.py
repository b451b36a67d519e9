"""From the planned source to a folder in the pod, verified."""
