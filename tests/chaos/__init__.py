"""Chaos: an operator that is killed, stopped, lied to and cut off, and must end where an undisturbed one ends.

A seed decides everything that happens (:mod:`tests.chaos.plan`). ``python -m tests.chaos`` runs many of them.
"""
