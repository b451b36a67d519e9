"""Kubernetes quantities, in and out."""

from decimal import Decimal

from kubernetes.utils.quantity import parse_quantity as _parse

MEBIBYTE = 2**20


def parse_quantity(value: str | int | float) -> Decimal:
    """The value of a quantity such as ``500m`` or ``16Gi``.

    Raises:
        ValueError: ``value`` is no quantity.
    """
    parsed: Decimal = _parse(value)
    return parsed


def mebibytes(count: float) -> str:
    """Bytes as a quantity in whole MiB, rounded up, in the form that the API server keeps."""
    whole = -(-int(count) // MEBIBYTE)
    return f"{whole // 1024}Gi" if whole and whole % 1024 == 0 else f"{whole}Mi"


def millicpus(count: float) -> str:
    """CPUs as a quantity, rounded up to thousandths, in the form that the API server keeps."""
    thousandths = -(-int(count * 1_000_000) // 1000)
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"
