"""What all settings have alike."""

from pydantic import ConfigDict

from onnx_operator.api.sources import ApiModel


class SettingsModel(ApiModel):
    """Base of the settings: an unknown name is an error, since a typo would otherwise be ignored in silence."""

    model_config = ConfigDict(**(ApiModel.model_config | {"extra": "forbid"}))
