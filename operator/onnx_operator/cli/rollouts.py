"""``kubectl onnx history`` and ``kubectl onnx rollback``: a model's revisions, and the way back to one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from onnx_operator.cli.output import echo, echo_json, show
from onnx_operator.common.text import visible

if TYPE_CHECKING:
    from onnx_operator.cli.kubectl import Kubectl
    from onnx_operator.cli.rollback import Plan
    from onnx_operator.controller.cluster.kinds import Object

TRIES = 3
"""Of a patch, while the operator writes the model's status."""
MANAGER = "kubectl-onnx"
"""Who the API server is told changes the spec."""


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add kubectl's options that lead to a cluster and namespace."""
    for option in (
        click.option("--kubeconfig", default="", metavar="FILE", help="Default: as for kubectl."),
        click.option("--context", "cluster", default="", metavar="NAME", help="A context of the kubeconfig."),
        click.option("--namespace", "-n", default="", metavar="NAME", help="Default: that of the context."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("name")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
@cluster_options
def history(name: str, output: str, namespace: str, cluster: str, kubeconfig: str) -> None:
    """List the revisions of the model NAME: what ran, runs, and is to run.

    \b
    wanted      the newest revision
    serving     takes traffic
    good        was rolled out to its end
    failed      could not serve; why is told below the list
    unreadable  made by another version of the operator
    unsealed    without the operator's seal, and never applied

    The share is that of the model's ready pods. What is shown is what the objects say: the operator alone can check
    its seals, and applies nothing that another has written.

    It takes the rights to get onnxmodels, and to list controllerrevisions and pods.

    Exit codes: 0 listed, 2 the cluster could not be asked.
    """  # noqa: D301 - click's own mark
    from onnx_operator.cli import tables
    from onnx_operator.cli.history import told
    from onnx_operator.cli.kubectl import Kubectl
    from onnx_operator.cli.lookup import find_all, find_model

    kubectl = Kubectl(namespace, cluster, kubeconfig)
    found = told(find_all(kubectl, find_model(kubectl, name)))
    if output == "json":
        echo_json(found.model_dump(mode="json", by_alias=True, exclude_none=True), indent=2)
    else:
        show(tables.history(found))


@click.command()
@click.argument("name")
@click.option("--to", default="", metavar="REVISION", help="Its number or name. Default: the last good one.")
@click.option("--apply", "apply_it", is_flag=True, help="Patch the model, instead of printing the patch.")
@cluster_options
def rollback(name: str, to: str, apply_it: bool, namespace: str, cluster: str, kubeconfig: str) -> None:
    """Print the patch of the spec by which the model NAME asks for an earlier revision again; --apply applies it.

    Without --to that is the newest revision that was rolled out to its end and is not the present one, or else the one
    before that. A change that made no revision, because it was refused, is taken back.

    The patch sets the fields that pods are made from, and model.sha256 where it is the digest of another file.
    Replicas, suspend, tags and rollout stay. Where a GitOps tool owns the model, put the same into git instead: the
    tool would undo the patch.

    What is shown is what the objects say: the operator alone can check its seals. Look at the patch before you
    apply it.

    It takes the rights to get onnxmodels and to list controllerrevisions; with --apply to patch onnxmodels.

    Exit codes: 0 printed, applied, or nothing to do; 1 there is no going back by the spec; 2 the cluster could not be
    asked, or refused.
    """
    from onnx_operator.cli.kubectl import Kubectl
    from onnx_operator.cli.lookup import find_model
    from onnx_operator.cli.rollback import RollbackError
    from onnx_operator.cli.yamltext import to_yaml

    kubectl = Kubectl(namespace, cluster, kubeconfig)
    model = find_model(kubectl, name)
    kubectl = kubectl.in_namespace(model["metadata"]["namespace"])
    plan = _planned(kubectl, model, to)
    made = visible(plan.target.created)
    echo(f"{name} in namespace {kubectl.namespace}: back to {plan.target.shown}, made {made}", err=True)
    for note in plan.notes:
        echo(f"note: {visible(note)}", err=True)
    if not plan.patch:
        if plan.moved:
            raise RollbackError("the spec asks for that already, and what it leads to has changed: see the notes above")
        echo("The spec asks for that revision already.", err=True)
        return
    if apply_it:
        _apply(kubectl, model, plan)
        echo(f"The spec of {name} asks for {plan.target.shown} again. To see it rolled out:")
        echo(f"  {kubectl.shown('onnx', 'history', name)}")
        echo(f"  {kubectl.shown('get', 'onnxmodel', name, '--watch')}")
        echo("Where a GitOps tool owns this model, put the same into git, or the tool undoes it:", err=True)
        echo(to_yaml(plan.patch).rstrip("\n"), err=True)
        return
    echo(to_yaml(plan.patch).rstrip("\n"))
    echo(
        "Nothing is changed yet. Put this into git where a GitOps tool owns the model; else apply it with --apply.",
        err=True,
    )


def _planned(kubectl: Kubectl, model: Object, to: str) -> Plan:
    from onnx_operator.cli.history import entries
    from onnx_operator.cli.lookup import find_revisions
    from onnx_operator.cli.rollback import choose, plan

    found = find_revisions(kubectl, model)
    for note in found.notes:
        echo(f"note: {visible(note)}", err=True)
    known = entries(found.revisions)
    return plan(model, known, choose(known, to, model.get("spec") or {}))


def _apply(kubectl: Kubectl, model: Object, plan: Plan) -> None:
    """Patch exactly the model that was read; where only its status has changed since, it is read again."""
    from onnx_operator.cli.kubectl import KubectlError
    from onnx_operator.cli.lookup import MODELS, find_model

    name, uid = model["metadata"]["name"], model["metadata"]["uid"]
    for tried in range(1, TRIES + 1):
        seen = {"uid": uid, "resourceVersion": model["metadata"].get("resourceVersion")}
        document = json.dumps({"metadata": seen, **plan.patch}).encode()
        try:
            kubectl.run(
                *("patch", MODELS, name, "--type=merge", "--patch-file=/dev/stdin", f"--field-manager={MANAGER}"),
                *("--output=name",),
                verb="patch",
                resource=MODELS,
                given=document,
            )
        except KubectlError as error:
            if error.reason != "Conflict":
                raise
            now = find_model(kubectl, name)
            same = (now["metadata"]["uid"], now["metadata"].get("generation")) == (
                uid,
                model["metadata"].get("generation"),
            )
            if not same or tried == TRIES:
                changed = "somebody else changed it meanwhile" if not same else "its status changes all the time"
                raise KubectlError(f"{name} is not patched: {changed}. Look at it, and try again", "Conflict") from None
            model = now
        else:
            return
