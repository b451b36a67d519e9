"""Where the process stands between its start and its end, as its probes tell it."""

from onnx_operator.api.contract import Phase


class Lifecycle:
    """Ready exactly while the model serves and nobody has asked the process to stop."""

    def __init__(self) -> None:
        self.phase = Phase.LOADING
        self.draining = False
        self.progress: dict[str, object] = {}
        """Figures of the current phase: how far it is."""

    def enter(self, phase: Phase) -> None:
        """Begin ``phase``."""
        self.progress = {}
        self.phase = phase

    def note(self, **figures: object) -> None:
        """Replace the figures of how far the current phase is. May come from another thread."""
        self.progress = figures

    @property
    def ready(self) -> bool:
        """Whether new requests should come here."""
        return self.phase is Phase.SERVING and not self.draining

    @property
    def state(self) -> str:
        """The phase in a word, ``Draining`` once the end has been asked for."""
        return "Draining" if self.draining else str(self.phase)
