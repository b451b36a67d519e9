"""Clients of others as the oracle of the scoring server."""
