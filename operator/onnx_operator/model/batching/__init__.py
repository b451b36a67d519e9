"""Proves from a model's graph that the rows of a batch do not meet, so that requests may share a run."""
