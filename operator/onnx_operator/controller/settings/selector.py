"""Which OnnxModels an installation looks after: a label selector as Kubernetes has it.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from onnx_operator.controller.settings.base import SettingsModel

_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_DOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_KEY = re.compile(rf"({_DOMAIN}/)?{_NAME}")
_VALUE = re.compile(rf"({_NAME})?")
MAX_KEY_LENGTH = 253 + 1 + 63


def _key(text: str) -> str:
    if len(text) > MAX_KEY_LENGTH or not _KEY.fullmatch(text):
        raise ValueError("must be a label's key, such as team or example.com/team")
    return text


def _value(text: str) -> str:
    if not _VALUE.fullmatch(text):
        raise ValueError("must be a label's value: at most 63 letters, digits, '-', '_' and '.'")
    return text


LabelKey = Annotated[str, AfterValidator(_key)]
LabelValue = Annotated[str, AfterValidator(_value)]


class LabelExpression(SettingsModel):
    """One requirement of a label selector."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[LabelValue] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_values(self) -> Self:
        if bool(self.values) != (self.operator in ("In", "NotIn")):
            raise ValueError("values: In and NotIn need some, Exists and DoesNotExist take none")
        return self

    def text(self) -> str:
        """As a query of the API has it."""
        if self.operator in ("In", "NotIn"):
            return f"{self.key} {self.operator.lower()} ({','.join(self.values)})"
        return self.key if self.operator == "Exists" else f"!{self.key}"

    def matches(self, labels: Mapping[str, Any]) -> bool:
        """Whether these labels meet it."""
        if self.operator in ("In", "NotIn"):
            return (self.key in labels and labels[self.key] in self.values) == (self.operator == "In")
        return (self.key in labels) == (self.operator == "Exists")


class ModelSelector(SettingsModel):
    """Selects OnnxModels by their labels; an empty one selects all."""

    match_labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    match_expressions: list[LabelExpression] = Field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether it leaves any out."""
        return bool(self.match_labels or self.match_expressions)

    def text(self) -> str:
        """As a query of the API has it."""
        labels = [f"{key}={value}" for key, value in self.match_labels.items()]
        return ",".join([*labels, *(each.text() for each in self.match_expressions)])

    def matches(self, labels: Mapping[str, Any]) -> bool:
        """Whether an object with these labels is selected."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            each.matches(labels) for each in self.match_expressions
        )
