"""From nothing to scored predictions on a Kubernetes cluster: `python -m examples.demo`."""
