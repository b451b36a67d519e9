"""Every name that other people's tools may rely on: API group, labels, annotations, ports, paths.

Selector labels can never change once a Deployment exists (its selector is immutable), so they are defined here
once and nowhere else.
"""

GROUP = "onnx-operator.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "OnnxModel"
PLURAL = "onnxmodels"
SINGULAR = "onnxmodel"
SHORT_NAME = "onnx"

LABEL_MODEL = f"{GROUP}/model"
"""Name of the OnnxModel that owns a child; part of the selector."""
LABEL_TRACK = f"{GROUP}/track"
"""``stable`` or ``canary``; part of a Deployment's selector, left out of the Service's."""
LABEL_REVISION = f"{GROUP}/revision"
"""Name of the ControllerRevision that a pod was rendered from; never part of a selector."""
LABEL_CREDENTIALS = f"{GROUP}/credentials"
"""A Secret consents to be read for a model's source by carrying this label with the value ``true``."""
LABEL_SCORING = f"{GROUP}/scoring"
"""A ConfigMap with a scoring script that carries this label with the value ``true`` is watched."""
LABEL_INSPECTION = f"{GROUP}/inspection"
"""Name of the OnnxModel that a short inspection pod looks at. Such a pod carries no label that selects serving pods."""
TRACK_STABLE = "stable"

ANNOTATION_REFRESH = f"{GROUP}/refresh"
"""Any new value on an OnnxModel looks at its source again and retries."""
ANNOTATION_PAUSED = f"{GROUP}/paused"
"""With any value but ``false`` on an OnnxModel, nothing of it is changed; its status goes on telling what is."""
ANNOTATION_VERSION = f"{GROUP}/model-version"
ANNOTATION_DESCRIPTION = f"{GROUP}/model-description"
ANNOTATION_TAG_PREFIX = f"tags.{GROUP}/"
ANNOTATION_APPLIED = f"{GROUP}/applied-hash"
"""Hash of the manifest as the operator last applied it: an unchanged child costs no API write."""
ANNOTATION_SEAL = f"{GROUP}/seal"
"""On a ControllerRevision: the operator's proof that it made the revision; without it, it is never applied."""
NOTE_PREFIX = f"revision.{GROUP}/"
"""Begins the annotations of a ControllerRevision that hold what was found out about it; all of them are sealed."""

FIELD_MANAGER = "onnx-operator"
FIELD_MANAGER_STATUS = "onnx-operator-status"

CONTAINER_FETCH = "fetch"
CONTAINER_SERVER = "server"
CONTAINER_REQUIREMENTS = "requirements"
VOLUME_MODEL = "model"
MODEL_DIRECTORY = "/models"
VOLUME_SOURCE = "source"
SOURCE_DIRECTORY = "/source"
"""Where the claim of a ``pvc`` source is mounted, read-only, in whatever container reads it."""
TERMINATION_LOG = "/dev/termination-log"
SCORING_DIRECTORY = "/scoring"
IMAGE_SCORING_DIRECTORY = "/opt/scoring"
"""Where images of ``kubectl onnx package`` hold the script."""
IMAGE_MODEL_DIRECTORY = "/opt/model"
"""Where they hold the model, if they do."""
REQUIREMENTS_DIRECTORY = "/requirements"
TEST_DATA_DIRECTORY = "/testdata"
STATE_DIRECTORY = "/tmp"  # noqa: S108 - a volume of the pod's own
"""Where the server keeps notes that outlive its restart."""
HTTP_PORT = 8080
GRPC_PORT = 8081
SERVICE_PORT = 80

ENV_FETCH_PLAN = "ONNX_FETCH_PLAN"
"""JSON of :class:`onnx_operator.api.contract.FetchPlan`, in the environment of the ``fetch`` container.

A long one goes on in ``ONNX_FETCH_PLAN_2``, ``ONNX_FETCH_PLAN_3`` …: Linux takes 128 KiB of one variable.
"""
ENV_CPU_REQUEST = "ONNX_CPU_REQUEST"
"""Thousandths of a CPU that the ``server`` container asks for: where it has no limit, its threads follow from this."""
