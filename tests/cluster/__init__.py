"""A real Kubernetes on one machine, for tests: built from pinned modules, run as one process tree.

Nothing is imported here: the node's own processes run with the standard library alone.
"""
