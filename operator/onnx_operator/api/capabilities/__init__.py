"""What server images can run, as each declares it (``onnx-server capabilities``), bundled for the controller."""

from importlib import resources

from pydantic import Field

from onnx_operator.api.sources import ApiModel


class Capabilities(ApiModel):
    """What a server image can run. Verdicts use those of the image that will serve."""

    onnx_runtime_version: str
    ir_version: int = Field(description="newest IR version that loads")
    opsets: dict[str, int] = Field(description="newest opset version that loads, by domain")
    operators: dict[str, list[str]] = Field(
        description="operators known, by domain, for domains that the onnx package does not define"
    )


def load_capabilities(name: str = "onnxruntime-cpu") -> Capabilities:
    """The bundled capabilities of a server image."""
    text = resources.files(__name__).joinpath(f"{name}.json").read_text()
    return Capabilities.model_validate_json(text)
