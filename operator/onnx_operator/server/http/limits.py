"""What requests and connections are held to."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may take."""

    max_body_bytes: int = 64 << 20
    request_timeout: float = 5.0
    """Seconds from a request's head to its answer, waiting included; as on Azure ML's endpoints."""
    workers: int = 1
    """Inferences that run at once."""
    queue: int = 128
    """Requests that may wait for a worker."""
    connections: int = 16384
    """Connections that are open at once; further ones are closed."""
    idle_timeout: float = 75.0
    """Seconds that a connection is kept between two requests."""

    @property
    def places(self) -> int:
        """Scoring requests that may be here at once, those that wait included."""
        return self.workers + self.queue
