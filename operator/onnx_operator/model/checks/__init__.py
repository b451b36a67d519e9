"""Whether a model can run: its graph, versions, operators, and kernels at their types. Pure."""
