"""A model of the cluster with its revisions and pods, as kubectl reads them: what they hold is anybody's word."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import click

from onnx_operator.api import names
from onnx_operator.cli.kubectl import Kubectl, KubectlError
from onnx_operator.controller.cluster.kinds import CONTROLLER_REVISION, ONNX_MODEL, POD, Kind, Object
from onnx_operator.controller.cluster.naming import MAX_MODEL_NAME_LENGTH, is_model_name, is_namespace, label_selector
from onnx_operator.controller.cluster.nesting import parsed, roughly
from onnx_operator.controller.cluster.owners import is_controlled_by, is_pod_of
from onnx_operator.controller.observation.pods import mapping, slim_pod

MODELS = f"{names.PLURAL}.{names.GROUP}"
"""How kubectl is told the resource, whatever else is called the same."""
REVISIONS = "controllerrevisions.apps"
PODS = "pods"
PAGE = 25
"""Objects of a page: each may take 1.5 MiB."""
MAX_PAGES = 80
_RESOURCES = {ONNX_MODEL: MODELS, CONTROLLER_REVISION: REVISIONS, POD: PODS}


@dataclass(frozen=True)
class Found:
    """A model and what belongs to it."""

    model: Object
    """Its name, namespace and UID are known to be such."""
    revisions: tuple[Object, ...] = ()
    """Those that this very model controls."""
    pods: tuple[Object, ...] | None = ()
    """Those of its Deployment, cut to what is looked at; None where they may not be read."""
    notes: tuple[str, ...] = ()
    """What was not read, and why."""


def find_model(kubectl: Kubectl, name: str) -> Object:
    """The model of this name. Raises KubectlError, or a click exception where no model can have the name."""
    if not is_model_name(name):
        raise click.BadParameter(
            f"{name!r:.80} is no name of a model: expected a small letter, then small letters, digits and '-', at most "
            f"{MAX_MODEL_NAME_LENGTH} characters"
        )
    namespace = kubectl.namespace
    if not namespace:
        # kubectl alone knows which one its configuration means.
        told = kubectl.run("get", MODELS, name, "--output=jsonpath={.metadata.namespace}", verb="get", resource=MODELS)
        namespace = told.decode(errors="replace").strip()
    if not is_namespace(namespace):
        raise click.BadParameter(f"{namespace!r:.80} is no name of a namespace")
    found = _asked(kubectl.in_namespace(namespace), ONNX_MODEL, ONNX_MODEL.path(namespace, name))
    metadata = mapping(found.get("metadata"))
    uid = metadata.get("uid")
    if (metadata.get("name"), metadata.get("namespace")) != (name, namespace) or not isinstance(uid, str) or not uid:
        raise KubectlError(f"kubectl was asked for the model {name} in namespace {namespace} and got another object")
    return {**found, "metadata": metadata}


def find_revisions(kubectl: Kubectl, model: Object) -> Found:
    """The model and its revisions. Raises KubectlError."""
    name, there = model["metadata"]["name"], kubectl.in_namespace(model["metadata"]["namespace"])
    notes: list[str] = []
    found = tuple(r for r in _listed(there, CONTROLLER_REVISION, name, notes) if is_controlled_by(r, model))
    return Found(model, found, notes=tuple(notes))


def find_all(kubectl: Kubectl, model: Object) -> Found:
    """The model's revisions and pods. Pods that may not be read are left out, and that is said. Raises KubectlError."""
    name, there = model["metadata"]["name"], kubectl.in_namespace(model["metadata"]["namespace"])
    found = find_revisions(kubectl, model)
    notes, mine = list(found.notes), frozenset({name})
    try:
        pods = tuple(slim_pod(p) for p in _listed(there, POD, name, notes) if is_pod_of(p, mine))
    except KubectlError as error:
        return replace(found, pods=None, notes=(*notes, f"Which pods are ready is not known: {error.message}"))
    return replace(found, pods=pods, notes=tuple(notes))


def _listed(kubectl: Kubectl, kind: Kind, name: str, notes: list[str]) -> Iterator[Object]:
    """Objects that carry the model's label, page by page: a namespace may hold any number."""
    query = {"labelSelector": label_selector({names.LABEL_MODEL: name}), "limit": str(PAGE)}
    for _ in range(MAX_PAGES):
        page = _asked(kubectl, kind, f"{kind.path(kubectl.namespace)}?{urlencode(query)}", verb="list")
        items = page.get("items")
        yield from (item for item in (items if isinstance(items, list) else ()) if isinstance(item, dict))
        following = mapping(page.get("metadata")).get("continue")
        if not isinstance(following, str) or not following:
            return
        query["continue"] = following
    notes.append(
        f"More than {PAGE * MAX_PAGES} {_RESOURCES[kind]} carry the label {names.LABEL_MODEL}={name}: the others were "
        "not read."
    )


def _asked(kubectl: Kubectl, kind: Kind, path: str, verb: str = "get") -> Object:
    # The API server's own bytes: kubectl indents what it prints, and depth is anybody's choice.
    resource = _RESOURCES[kind]
    answer = kubectl.run("get", f"--raw={path}", verb=verb, resource=resource)
    found = _json(answer)
    if not isinstance(found, dict):
        raise KubectlError(f"kubectl's answer to {verb} {resource} is no JSON object: {answer[:200]!r}")
    return found


def _json(document: bytes) -> Any:
    try:
        return asyncio.run(parsed(document))
    except ValueError:
        pass
    try:
        return asyncio.run(roughly(document))
    except ValueError:
        return None
