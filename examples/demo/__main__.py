"""Command line of the demonstration."""

from __future__ import annotations

import os
import sys

import click

from examples.demo import story
from examples.demo.console import heading, line
from examples.demo.install import Images
from examples.demo.target import target
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError, ClusterUnavailableError
from tests.cluster.layout import BIN, KUBECONFIG

_OWN_CLUSTER = (
    "With a cluster of your own, and images that its nodes can pull:\n"
    "  make demo CONTEXT=my-context OPERATOR_IMAGE=… SERVER_IMAGE=… S3_IMAGE=…\n"
    "(build them from images/ and examples/demo/s3/; `kubectl config get-contexts` lists the contexts)"
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--context", envvar="CONTEXT", help="Context of the kubeconfig; without it, a local cluster.")
@click.option("--operator-image", envvar="OPERATOR_IMAGE", help="The operator's image, with its tag.")
@click.option("--server-image", envvar="SERVER_IMAGE", help="The scoring pods' image.")
@click.option("--s3-image", envvar="S3_IMAGE", help="An image with a shell and versitygw in its PATH.")
def main(context: str | None, operator_image: str | None, server_image: str | None, s3_image: str | None) -> None:
    """From nothing to scored predictions: cluster, operator, store, three models, and one that is refused.

    Images are built here and loaded into the local cluster; a cluster of yours (--context) has to be told where
    to pull them. May be run again at any time.
    """
    context = context or None
    given = [image for image in (operator_image, server_image, s3_image) if image]
    if len(given) != (3 if context else 0):
        needed = "with --context all three images are needed" if context else "images are given with --context only"
        raise click.UsageError(f"{needed}.\n{_OWN_CLUSTER}")
    images = Images(operator_image, server_image) if operator_image and server_image else None
    try:
        _run(context, images, s3_image)
    except ClusterUnavailableError as error:
        click.echo(f"\nNo cluster can run on this machine: {error}\n\n{_OWN_CLUSTER}", err=True)
        sys.exit(1)
    except (ClusterError, AssertionError) as error:
        click.echo(f"\nThe demonstration failed: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("\nInterrupted; the next run goes on from here.", err=True)
        sys.exit(130)


def _run(context: str | None, images: Images | None, s3_image: str | None) -> None:
    heading(f"The cluster of context {context}" if context else "A Kubernetes cluster on this machine")
    with target(context) as cluster:
        node = cluster.kubectl("get", "nodes", "--output=wide", "--no-headers").strip()
        line(node)
        store = story.set_up_store(cluster, s3_image)
        story.install(cluster, store, images)
        uploaded = story.upload_models(store)
        story.apply_examples(cluster, uploaded)
        story.score(cluster, [model for model, _ in uploaded])
        story.show_refusal(cluster)
        _summary(cluster, context)


def _summary(cluster: Cluster, context: str | None) -> None:
    flags = f" --context {context}" if context else ""
    kubectl = f"kubectl{flags} -n {story.NAMESPACE}"
    heading("Done. What to try next:")
    commands = []
    if cluster.is_local:
        commands += [f"export KUBECONFIG={KUBECONFIG}", f'export PATH="{BIN}:$PATH"']
    commands += [
        f"{kubectl} get onnx -o wide",
        f"{kubectl} describe onnx broken",
        f"{kubectl} scale onnx/squeezenet --replicas 2",
        f"{kubectl} rollout status deployment/squeezenet",
        *_ask(cluster, kubectl),
        f"{kubectl} delete -f {os.path.relpath(story.EXAMPLES)}/",
    ]
    if cluster.is_local:
        commands.append("make cluster-down")
    for command in commands:
        line(command)


def _ask(cluster: Cluster, kubectl: str) -> list[str]:
    """Commands that score a flower."""
    body = '{"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [6.3, 3.3, 6.0, 2.5]}]}'
    if cluster.is_local:
        address = cluster.get("service", "iris", story.NAMESPACE)["spec"]["clusterIP"]
        return [f"curl -s http://{address}/v2/models/iris/infer -d '{body}'"]
    return [
        f"{kubectl} port-forward service/iris 8080:80 &",
        f"curl -s http://127.0.0.1:8080/v2/models/iris/infer -d '{body}'",
    ]


if __name__ == "__main__":
    main()
