"""Times as the Kubernetes API writes them (RFC 3339, UTC)."""

from datetime import UTC, datetime


def micro_time() -> str:
    """Now, as a MicroTime: six fractional digits."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def time() -> str:
    """Now, as a Time: whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def seconds_between(earlier: object, later: object) -> float | None:
    """Seconds between two Times; None where one of them is none."""
    try:
        return (datetime.fromisoformat(str(later)) - datetime.fromisoformat(str(earlier))).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
