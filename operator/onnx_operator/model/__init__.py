"""What a model is: where its bytes come from, and what is in them. Knows nothing of Kubernetes or serving.

``inspection`` leads from a URI to a verdict: ``sources`` bring ranges of bytes, ``reading`` (through ``archive`` where
need be) makes a structure of them, ``judge`` has ``checks`` look at it and ``figures`` describe it, ``signatures`` say
who stands for it. ``comparison`` sets two reports side by side.
"""
