"""How many pods an update may add and take away at a time, as Kubernetes takes it: a number, or a share of replicas."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from onnx_operator.api.sources import ApiModel

MAX_PODS = 1000
SHARE = r"^([0-9]|[1-9][0-9]|100)%$"


def _whole(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number of pods, or a share such as 25%")
    return value


# https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/deployment-v1/#DeploymentSpec
PodCount = Annotated[
    Annotated[int, Field(strict=True, ge=0, le=MAX_PODS)] | Annotated[str, Field(pattern=SHARE)],
    BeforeValidator(_whole),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "maximum": MAX_PODS,
            "pattern": SHARE,
            "maxLength": 4,
        }
    ),
]
"""A number of pods, or a share of the replicas such as ``25%``."""


def is_none(count: int | str | None) -> bool:
    """Whether it was said, and is no pod at all."""
    return count in (0, "0%")


class Steps(ApiModel):
    """How far an update goes at a time; what is not said is decided elsewhere."""

    max_surge: PodCount | None = None
    max_unavailable: PodCount | None = None

    @property
    def stands_still(self) -> bool:
        """Whether it lets no pod be replaced."""
        return is_none(self.max_surge) and is_none(self.max_unavailable)
