"""What is told of a model that can run: interface, operations, memory, coverage by execution provider. Pure."""
