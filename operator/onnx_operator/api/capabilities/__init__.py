"""What server images can run, as each declares it (``onnx-server capabilities``), bundled for the controller."""

from importlib import resources

from pydantic import Field

from onnx_operator.api.sources import ApiModel


class KernelTable(ApiModel):
    """Kernels of the CPU execution provider, written short: the table travels to the pods that inspect.

    A kernel is a text such as ``13-14 T=3 I=0``: versions of the operator's definition (since-versions, both ends
    included; one number where there is but one), and for each type parameter the index of its types in ``types``.
    """

    types: list[str] = Field(
        default_factory=list, description="sets of types, as in `tensor(float|int64) seq(tensor(float))`"
    )
    operators: dict[str, dict[str, list[str]]] = Field(
        default_factory=dict, description="kernels by domain and operator; none at all where they are not known"
    )
    signatures: dict[str, dict[str, str]] = Field(
        default_factory=dict,
        description="parameters of operators that only the runtime defines, after the versions of the operator set"
        " that have them and before the types, as in `1-16 A:T B:T rest:T* > Y:T T=3`",
    )


class Capabilities(ApiModel):
    """What a server image can run. Verdicts use those of the image that will serve."""

    onnx_runtime_version: str
    ir_version: int = Field(description="newest IR version that loads")
    opsets: dict[str, int] = Field(description="newest opset version that loads, by domain")
    operators: dict[str, list[str]] = Field(
        description="operators known, by domain, for domains that the onnx package does not define"
    )
    kernels: KernelTable = Field(
        default_factory=KernelTable, description="kernels of the CPU execution provider; types are not checked without"
    )

    def without_kernels(self) -> "Capabilities":
        """The same, for a runtime that also has kernels of other providers: types are not checked."""
        return self.model_copy(update={"kernels": self.kernels.model_copy(update={"operators": {}})})


def load_capabilities(name: str = "onnxruntime-cpu") -> Capabilities:
    """The bundled capabilities of a server image."""
    text = resources.files(__name__).joinpath(f"{name}.json").read_text()
    return Capabilities.model_validate_json(text)
