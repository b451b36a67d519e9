"""Asking the runtime itself: a model's structure, with stand-ins for its weights, is loaded by what will serve it."""
