"""What the execution providers of ONNX Runtime compute, as tables made from public packages and documents.

``python -m tests.tools.providers`` makes them. No provider but the CPU's can be asked where models are inspected:
it needs its device.
"""

from functools import cache
from importlib import resources
from typing import Literal

from pydantic import Field

from onnx_operator.api.capabilities import KernelTable
from onnx_operator.api.sources import ApiModel

Provider = Literal["CUDA", "TensorRT", "OpenVINO", "MIGraphX", "ROCm"]
PROVIDERS: tuple[Provider, ...] = ("CUDA", "TensorRT", "OpenVINO", "MIGraphX", "ROCm")


class Rule(ApiModel):
    """What a provider asks of a node besides its types; a node that does not meet it runs on the CPU."""

    known_inputs: list[int] = Field(
        default_factory=list, description="inputs whose values have to be known while the model is loaded"
    )
    attributes: dict[str, list[int | str]] = Field(
        default_factory=dict, description="values allowed, by attribute; of a list, each of its elements"
    )
    absent: list[str] = Field(default_factory=list, description="attributes that must not be given")
    symmetric: list[str] = Field(default_factory=list, description="attributes whose two halves must be the same")
    max_inputs: int | None = None
    max_outputs: int | None = None
    ranks: list[int] = Field(default_factory=list, description="ranks allowed of the first input; empty: all")
    types: list[str] = Field(default_factory=list, description="element types allowed of the first input; empty: all")


class ProviderTable(ApiModel):
    """What one provider computes: by kernels, or by operators and element types."""

    provider: Provider
    release: str = Field(description="what it describes, such as `ONNX Runtime 1.31.1`")
    source: str = Field(description="the package or document that it was made from")
    date: str = Field(description="when it was made, as in 2026-11-25")
    approximate: str = Field(description="what it cannot tell")
    kernels: KernelTable | None = Field(default=None, description="None where the provider takes whole graphs")
    domains: list[str] = Field(default_factory=list, description="domains of ``operators``")
    operators: dict[str, int] = Field(
        default_factory=dict, description="operators and the index of their element types in ``types``"
    )
    types: list[list[str]] = Field(default_factory=list, description="sets of element types, as in `float16`")
    typed: Literal["FirstInput", "All"] = Field(
        default="All", description="whether the types count of all inputs and outputs, or of the first input"
    )
    scalars: list[str] | None = Field(
        default=None, description="operators that take scalars which are not known while loading; None: all do"
    )
    rules: dict[str, Rule] = Field(default_factory=dict, description="by operator")
    defined: list[str] = Field(
        default_factory=list,
        description="operators that have no kernel on the CPU either: the runtime computes them by their definition",
    )
    whole_bodies: bool = Field(
        default=False, description="whether the bodies of If, Loop and Scan run where their node runs, or nowhere"
    )
    most_fallbacks: int | None = Field(
        default=None, description="with more nodes than these that it cannot compute, it computes none"
    )

    @property
    def known(self) -> int:
        """How many operators the table lists."""
        if self.kernels is None:
            return len(self.operators)
        return sum(len(operators) for operators in self.kernels.operators.values())


@cache
def load_tables() -> tuple[ProviderTable, ...]:
    """The bundled tables, in the order of ``PROVIDERS``."""
    folder = resources.files(__name__)
    texts = (folder.joinpath(f"{name.lower()}.json").read_text() for name in PROVIDERS)
    return tuple(ProviderTable.model_validate_json(text) for text in texts)
