"""Bounds of an inspection."""

from dataclasses import dataclass

LARGEST_FILE_BYTES = 2**31 - 1
"""Protobuf's limit for one message, which ONNX Runtime has too: no single ONNX file is larger."""


@dataclass(frozen=True)
class InspectionLimits:
    """What one inspection may take. Bytes and seconds."""

    max_model_bytes: int = LARGEST_FILE_BYTES
    """Larger files are refused as ``TooLarge`` (the setting ``inspection.maxModelBytes``)."""
    cpu_seconds: int = 30
    """Processor time of the parsing child."""
    wall_seconds: int = 120
    """Time from the beginning of parsing to the verdict."""
    memory_bytes: int = 1 << 30
    """Address space of the parsing child, besides four times the size of the file."""
    parsers: int = 2
    """Children that parse at the same time."""
    inspections: int = 64
    """Inspections that are under way at the same time, most of them waiting for the network."""
    inspections_per_tenant: int = 16
    """Of these, how many may be of one tenant."""
    workdir_bytes: int = 0
    """Bytes that all inspections together may keep in the work folder; 0: no limit."""
