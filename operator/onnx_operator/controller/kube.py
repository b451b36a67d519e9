"""The API server, as the few calls the controller makes: get, list, server-side apply, create, delete, log.

Objects are plain JSON. The kinds are known, so nothing is discovered and no discovery cache is written to disk.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from onnx_operator import __version__
from onnx_operator.api import names

Object = dict[str, Any]
REQUEST_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Kind:
    """A namespaced resource: where its objects live in the API."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection, an object, or an object's subresource."""
        root = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        parts = [root, "namespaces", namespace, self.plural, name, subresource]
        return "/".join(part for part in parts if part)


ONNX_MODEL = Kind(names.API_VERSION, names.KIND, names.PLURAL)
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
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


class ApiError(Exception):
    """The API server refused a call.

    ``status`` is the HTTP code, ``reason`` the machine-readable word of the API's Status object, where it sent one.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def invalid(self) -> bool:
        """Whether the object itself is at fault, so that sending it again cannot help.

        Server-side apply answers 500 to a field that the schema does not know
        (https://github.com/kubernetes/kubernetes/issues/125057).
        """
        return not self.by_webhook and (
            self.status in (400, 422) or "failed to create typed patch object" in self.message
        )

    @property
    def by_webhook(self) -> bool:
        """Whether an admission webhook refused, or could not be asked: it may change its mind."""
        return "admission webhook" in self.message or "failed calling webhook" in self.message

    @property
    def refused(self) -> bool:
        """Whether the API server will not have the object, for whatever reason."""
        return self.invalid or self.by_webhook or self.status == 403


def _api_error(error: ApiException) -> ApiError:
    body = error.body if isinstance(error.body, str) else ""
    try:
        status = json.loads(body)
    except ValueError:
        status = {}
    if not isinstance(status, dict):
        status = {}
    message = status.get("message") or body or error.reason or f"HTTP {error.status}"
    return ApiError(int(error.status or 0), status.get("reason", ""), str(message)[:2000])


class Kube:
    """One connection pool to the API server, for the life of the process."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        api.user_agent = f"onnx-operator/{__version__}"

    @classmethod
    async def connect(cls, kubeconfig: str | None = None) -> Self:
        """Connect with a kubeconfig, or with the pod's service account when none is given."""
        configuration = client.Configuration()
        if kubeconfig:
            await config.load_kube_config(kubeconfig, client_configuration=configuration)
        else:
            config.load_incluster_config(client_configuration=configuration)
        return cls(client.ApiClient(configuration))

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> str:
        request = await self._api.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = await self._api.call_api(*request, _request_timeout=REQUEST_TIMEOUT_SECONDS)
            data = await response.read()
        except aiohttp.ClientError as error:
            # Not all of them are OSErrors; to everybody here they are one thing: the API server was not reached.
            raise ConnectionError(f"the API server does not answer: {type(error).__name__}: {error}") from error
        text: str = data.decode(errors="replace")
        if not 200 <= response.status <= 299:
            raise _api_error(ApiException(status=response.status, reason=response.reason, body=text))
        return text

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object, or None where there is none."""
        try:
            result: Object = json.loads(await self._request("GET", kind.path(namespace, name)))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return result

    async def list(self, kind: Kind, namespace: str, label_selector: str) -> list[Object]:
        """The objects that carry these labels, each with apiVersion and kind."""
        body = json.loads(await self._request("GET", kind.path(namespace), {"labelSelector": label_selector}))
        items: list[Object] = body.get("items") or []
        return [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in items]

    async def apply(
        self,
        kind: Kind,
        manifest: Object,
        *,
        manager: str = names.FIELD_MANAGER,
        subresource: str | None = None,
        dry_run: bool = False,
        strict: bool = False,
    ) -> Object:
        """Server-side apply, taking over conflicting fields (KEP-555); returns the object as it is then."""
        query = {"fieldManager": manager, "force": "true"}
        if dry_run:
            query["dryRun"] = "All"
        if strict:
            query["fieldValidation"] = "Strict"
        metadata = manifest["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"], subresource)
        result: Object = json.loads(await self._request("PATCH", path, query, manifest, "application/apply-patch+yaml"))
        return result

    async def create(self, kind: Kind, manifest: Object) -> Object:
        """Create an object."""
        path = kind.path(manifest["metadata"]["namespace"])
        result: Object = json.loads(await self._request("POST", path, {"fieldManager": names.FIELD_MANAGER}, manifest))
        return result

    async def replace(self, kind: Kind, manifest: Object) -> Object:
        """Replace an object; fails with 409 when it has changed since it was read."""
        metadata = manifest["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"])
        result: Object = json.loads(await self._request("PUT", path, None, manifest))
        return result

    async def merge(self, kind: Kind, namespace: str, name: str, patch: Object) -> Object:
        """Change fields of an object (RFC 7386); with ``metadata.uid`` in the patch, of exactly this object."""
        query = {"fieldManager": names.FIELD_MANAGER}
        path = kind.path(namespace, name)
        result: Object = json.loads(await self._request("PATCH", path, query, patch, "application/merge-patch+json"))
        return result

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete exactly this object (by uid); one that is gone already, or is another by now, is left alone."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            await self._request("DELETE", kind.path(namespace, name), None, body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def log(self, namespace: str, pod: str, container: str, limit_bytes: int) -> str:
        """The first bytes of a container's log."""
        query = {"container": container, "limitBytes": str(limit_bytes)}
        return await self._request("GET", POD.path(namespace, pod, "log"), query)
