"""The user's ``score.py``, as Azure ML runs it: in a process of its own, behind ``/score``."""
