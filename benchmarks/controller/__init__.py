"""The controller, measured: from apply to Ready, against a raw client that creates the same Deployments."""
