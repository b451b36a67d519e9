"""What scoring scripts import of ``azureml.core`` besides the model's path: there is no Azure behind it here.

Importing works, as scripts often import more than they use. A run is one without a service, as Azure ML's package gives
it outside of a run; whatever would ask a workspace says in words that there is none.
"""

import uuid
from typing import Any, NoReturn

from onnx_operator.server.script.modelpath import AzureMLException

_INSTEAD = (
    "a scoring script finds its model by Model.get_model_path(NAME) or in the folder AZUREML_MODEL_DIR, and settings "
    "and keys in environment variables (spec.podTemplate)"
)


class UserErrorException(AzureMLException):
    """What was asked for is not to be had."""


class WorkspaceException(UserErrorException):
    """There is no Azure ML workspace here."""


class RunEnvironmentException(AzureMLException):
    """There is no run of an experiment here."""


def _absent(what: str) -> NoReturn:
    raise WorkspaceException(f"{what}: there is no Azure ML workspace here; {_INSTEAD}")


class _Kind(type):
    """Makes every call of a class, and of what it might have, an error in words."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: _absent(f"{cls.__name__}.{name}()")

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        _absent(f"{cls.__name__}()")


class Workspace(metaclass=_Kind):
    """Stands for a workspace; ``Workspace.from_config()``, ``get()`` and all else raise :class:`WorkspaceException`."""


class Dataset(metaclass=_Kind):
    """Stands for data of a workspace."""


class Datastore(metaclass=_Kind):
    """Stands for a store of a workspace."""


class Environment(metaclass=_Kind):
    """Stands for an environment of a workspace."""


class Keyvault(metaclass=_Kind):
    """Stands for a workspace's secrets."""


class Webservice(metaclass=_Kind):
    """Stands for what a workspace has deployed."""


class _NoWorkspace:
    """The workspace of a run without a service: it may be handed on, and knows nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _absent(f"Run.experiment.workspace.{name}")


class Experiment:
    """The experiment of a run."""

    def __init__(self, workspace: Any = None, name: str = "", **_: Any) -> None:
        self.workspace = _NoWorkspace() if workspace is None else workspace
        self.name = name


class Run:
    """A run without a service: what it is told goes to the log, and it knows no more than an id of its own."""

    def __init__(self, experiment: Any = None, run_id: str = "", **_: Any) -> None:
        self.experiment = experiment or Experiment()
        self.id = self.run_id = run_id or f"OfflineRun_{uuid.uuid4()}"
        self.number = self.parent = None
        self.name = self.display_name = ""
        self.status = "Running"
        self.input_datasets: dict[str, Any] = {}
        self.output_datasets: dict[str, Any] = {}
        self._tags: dict[str, str] = {}

    @classmethod
    def get_context(cls, allow_offline: bool = True, used_for_context_manager: bool = False, **_: Any) -> "Run":
        """The run of this process. Raises :class:`RunEnvironmentException` where one without a service will not do."""
        if not allow_offline:
            raise RunEnvironmentException(
                f"Run.get_context(allow_offline=False): this is not a run on Azure ML; {_INSTEAD}"
            )
        return _CONTEXT

    def log(self, name: str, value: Any = None, *_: Any, **__: Any) -> None:
        """Print a value with its name, to the server's log. ``log_list``, ``log_row`` … do the same."""
        print(f"{name}: {value}")

    def _log_named(self, name: str, *values: Any, **named: Any) -> None:
        print(f"{name}: {named or (values[0] if values else None)}")

    log_list = log_row = log_table = log_image = log_confusion_matrix = log_accuracy_table = _log_named
    log_predictions = log_residuals = _log_named

    def tag(self, key: str, value: str = "") -> None:
        """Remember a tag."""
        self._tags[key] = value

    def set_tags(self, tags: dict[str, str]) -> None:
        """Remember tags."""
        self._tags.update(tags)

    def get_tags(self) -> dict[str, str]:
        """The tags that were set in this process."""
        return dict(self._tags)

    def get_metrics(self, *_: Any, **__: Any) -> dict[str, Any]:
        """None are kept."""
        return {}

    def get_file_names(self) -> list[str]:
        """None are kept."""
        return []

    def get_details(self) -> dict[str, Any]:
        """What is known of the run."""
        return {"runId": self.id, "status": self.status, "target": "local", "properties": {}}

    def get_secret(self, name: str) -> Any:
        """Raises :class:`WorkspaceException`: secrets come in environment variables."""
        _absent(f"Run.get_secret({name!r})")

    def _nothing(self, *_: Any, **__: Any) -> None:
        """There is nobody to tell."""

    upload_file = upload_files = upload_folder = flush = complete = fail = cancel = start = _nothing

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left open."""


_CONTEXT = Run()
