"""Scoring, measured: our server and those of KServe and MLServer against bare runs of the model."""
