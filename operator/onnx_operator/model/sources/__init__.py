"""Sources of models: one interface over the stores, from which exactly the inspected bytes are read.

Importing this package needs neither ``onnx`` nor any Kubernetes library: pods fetch with it too.
"""

from onnx_operator.model.sources.base import (
    BrokenStreamError,
    FileStat,
    Source,
    SourceChangedError,
    SourceError,
    Stream,
)
from onnx_operator.model.sources.opening import open_source

__all__ = [
    "BrokenStreamError",
    "FileStat",
    "Source",
    "SourceChangedError",
    "SourceError",
    "Stream",
    "open_source",
]
