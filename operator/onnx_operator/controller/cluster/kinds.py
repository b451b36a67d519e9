"""The kinds of objects that the controller meets, and where the API keeps them."""

from dataclasses import dataclass
from typing import Any

from onnx_operator.api import names
from onnx_operator.controller.cluster.naming import object_path

Object = dict[str, Any]
"""An object of the API, as plain JSON."""


@dataclass(frozen=True)
class Kind:
    """A namespaced resource: where its objects live in the API."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection (without a namespace: of all), an object, or an object's subresource.

        Raises:
            InvalidNameError: a part is not a name that an object can have.
        """
        root = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        return object_path(root, self.plural, namespace, name, subresource)


ONNX_MODEL = Kind(names.API_VERSION, names.KIND, names.PLURAL)
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets")
CONTROLLER_REVISION = Kind("apps/v1", "ControllerRevision", "controllerrevisions")
SERVICE = Kind("v1", "Service", "services")
POD_DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
POD = Kind("v1", "Pod", "pods")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SECRET = Kind("v1", "Secret", "secrets")
EVENT = Kind("events.k8s.io/v1", "Event", "events")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")

CHILD_KINDS = (DEPLOYMENT, SERVICE, POD_DISRUPTION_BUDGET)
"""Kinds that a revision may hold; also those that are pruned."""
KINDS = {k.kind: k for k in (*CHILD_KINDS, CONTROLLER_REVISION)}
