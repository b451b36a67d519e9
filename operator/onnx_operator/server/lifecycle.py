"""Where the process stands between its start and its end, as its probes tell it."""

from onnx_operator.api.contract import Phase


class Lifecycle:
    """Ready exactly while the model serves and nobody has asked the process to stop."""

    def __init__(self) -> None:
        self.phase = Phase.LOADING
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether new requests should come here."""
        return self.phase is Phase.SERVING and not self.draining

    @property
    def state(self) -> str:
        """The phase in a word, ``Draining`` once the end has been asked for."""
        return "Draining" if self.draining else str(self.phase)
