"""Revisions and children, made so in the cluster."""
