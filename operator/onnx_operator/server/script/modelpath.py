"""Where a script finds its model: ``Model.get_model_path(NAME)`` in the folder ``AZUREML_MODEL_DIR``."""

import os
from pathlib import Path
from typing import Any

_OTHER_SUFFIXES = frozenset(
    [
        ".onnx",
        ".ort",
        ".pkl",
        ".pickle",
        ".joblib",
        ".sav",
        ".pt",
        ".pth",
        ".h5",
        ".hdf5",
        ".keras",
        ".pb",
        ".tflite",
        ".json",
        ".bin",
        ".npz",
        ".txt",
        ".zip",
    ]
)


class AzureMLException(Exception):  # noqa: N818 - its name there
    """What Azure ML's own package raises; the message is in ``message``."""

    def __init__(self, exception_message: str = "", **kwargs: Any) -> None:
        super().__init__(exception_message)
        self.message = exception_message


class ModelNotFoundException(AzureMLException):
    """There is no model of that name in this pod."""


class Model:
    """The part of ``azureml.core.model.Model`` that a scoring script uses: the one model that is here, by any name.

    Of what a workspace would tell of it, ``version`` is as given, and ``tags`` and ``properties`` are empty.
    """

    def __init__(
        self,
        workspace: Any = None,
        name: str | None = None,
        id: str | None = None,  # noqa: A002 - its name there
        version: Any = None,
        **_: Any,
    ) -> None:
        self.workspace = workspace
        self.name = name or (id or "").partition(":")[0]
        self.version = version if version is not None else (id or "").partition(":")[2] or None
        self.id = id or (f"{self.name}:{self.version}" if self.version is not None else self.name)
        self.tags: dict[str, str] = {}
        self.properties: dict[str, str] = {}
        self.description = ""

    def download(self, target_dir: str = ".", exist_ok: bool = False, **_: Any) -> str:
        """The path of the model, which is here already; nothing is copied. Raises :class:`ModelNotFoundException`."""
        return self.get_model_path(self.name, self.version)

    @staticmethod
    def get_model_path(model_name: str, version: Any = None, _workspace: Any = None) -> str:
        """The path of the model's file; of its folder where it has several files.

        ``model_name`` is a file or folder in ``AZUREML_MODEL_DIR``, with or without its suffix, or the name under
        which the model was registered: a pod holds one model, which every other name means as well, unless its
        suffix is another kind of file's. Raises :class:`ModelNotFoundException`, naming what is there.
        """
        root = os.environ.get("AZUREML_MODEL_DIR", "")
        if not root or not Path(root).is_dir():
            raise ModelNotFoundException(f"model {model_name!r}: AZUREML_MODEL_DIR is {root!r}, which is not a folder")
        return str(find(Path(root), str(model_name), None if version is None else str(version)))


def find(root: Path, name: str, version: str | None) -> Path:
    """The file or folder that ``name`` means below ``root``. Raises :class:`ModelNotFoundException`."""
    for candidate in (name, f"{name}.onnx"):
        path = root / candidate
        if candidate.strip("./") and path.resolve().is_relative_to(root.resolve()) and path.exists():
            return _entry(_version(path, name, version))
    files = _files(root)
    suffix = Path(name).suffix.lower()
    if suffix in _OTHER_SUFFIXES and all(file.suffix.lower() != suffix for file in files):
        raise _missing(root, name, files)
    models = [file for file in files if file.suffix.lower() in (".onnx", ".ort")]
    if suffix in _OTHER_SUFFIXES and len(models) == 1:
        # The documentation's `get_model_path("model.onnx")`, whatever the file is called here.
        return models[0]
    if len(files) == 1:
        return files[0]
    if len(models) == 1:
        return root
    raise _missing(root, name, files)


def _version(path: Path, name: str, version: str | None) -> Path:
    """``NAME/VERSION``, as Azure ML lays out models, where that is how the folder looks."""
    numbered = [child for child in path.iterdir() if child.is_dir() and child.name.isdigit()] if path.is_dir() else []
    if version is not None:
        chosen = [child for child in numbered if child.name == version]
        if numbered and not chosen:
            there = ", ".join(sorted(child.name for child in numbered))
            raise ModelNotFoundException(f"model {name!r} has no version {version}; there are: {there}")
        return chosen[0] if chosen else path
    if numbered and len(numbered) == len([child for child in path.iterdir() if not child.name.startswith(".")]):
        return max(numbered, key=lambda child: int(child.name))
    return path


def _entry(path: Path) -> Path:
    if path.is_dir():
        inside = [child for child in path.iterdir() if not child.name.startswith(".")]
        if len(inside) == 1 and inside[0].is_file():
            return inside[0]
    return path


def _files(root: Path) -> list[Path]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(folder) / name for name in names if not name.startswith(".")]
    return sorted(found)


def _missing(root: Path, name: str, files: list[Path]) -> ModelNotFoundException:
    there = ", ".join(str(file.relative_to(root)) for file in files[:20]) or "nothing"
    more = f" and {len(files) - 20} more" if len(files) > 20 else ""
    return ModelNotFoundException(f"there is no model {name!r} in {root}, which holds: {there}{more}")
