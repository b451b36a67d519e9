"""Scoring scripts as people write them for Azure ML, what they are asked, and what Azure's own server answered.

``python -m tests.clients.azureml`` asks that server anew and writes ``recorded.json``.
"""
