"""Bounds of an inspection."""

from dataclasses import dataclass

MAX_FILE_BYTES = 2**31 - 1
"""Protobuf's limit for one message, which ONNX Runtime has too: no single ONNX file is larger."""

MAX_NODES = 200_000
"""Nodes of a structure that anything goes through, those of a local function at each of its calls. What platform teams
set by ``inspection.maxNodes`` is what a model may have; the proof of batching and the estimate of memory, which take
longer for each node, stay with this."""


@dataclass(frozen=True)
class InspectionLimits:
    """What one inspection may take. Bytes and seconds."""

    max_model_bytes: int = 20 << 30
    """Larger models, all files together, are refused as ``TooLarge`` (the setting ``inspection.maxModelBytes``)."""
    cpu_seconds: int = 30
    """Processor time of the parsing child; reading an archive may take more, in proportion to its size."""
    load_seconds: int = 30
    """Processor time beside that, for the runtime to load the structure: 100,000 nodes take it 7 s."""
    answer_seconds: int = 120
    """Longest time that the child may think without asking for a byte."""
    memory_bytes: int = 1 << 30
    """Address space of the parsing child, for the structure and the checks on it."""
    max_nodes: int = MAX_NODES
    """Larger structures are refused as ``TooLarge`` (the setting ``inspection.maxNodes``). Every node counts, those of
    a local function at each of its calls."""
    timeout_seconds: float = 3600
    """Longest inspection, the time in queues left out (the setting ``inspection.timeoutSeconds``)."""
    parsers: int = 3
    """Children that check a structure at the same time; one tenant may have all but one of these places."""
    readers: int = 8
    """Children that were given more than a megabyte and check nothing yet; one tenant may have half of these places.
    Others read beside them, with less."""
    inspections: int = 32
    """Inspections that are under way at the same time, most of them waiting for the network."""
    inspections_per_tenant: int = 16
    """Of these, how many may be of one tenant."""
