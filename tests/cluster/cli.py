"""Commands of ``python -m tests.cluster``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from tests.cluster import images, lifecycle, machine, project_images, tools
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError, tail
from tests.cluster.layout import BIN, KUBECONFIG, LOGS

_PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        """Errors that explain themselves need no traceback."""
        try:
            return super().invoke(ctx)
        except ClusterError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A real Kubernetes on this machine, for development and tests."""


@main.command()
def up() -> None:
    """Bring the cluster up; does nothing when it is up and well."""
    started = time.monotonic()
    lifecycle.up()
    click.echo(f"up after {time.monotonic() - started:.1f} s; export KUBECONFIG={KUBECONFIG}")


@main.command()
def down() -> None:
    """Take the cluster down and leave nothing but the caches."""
    lifecycle.down()


@main.command()
def status() -> None:
    """Say how each component is; exit status 1 unless all are well."""
    problem, states = lifecycle.status()
    for state in states:
        click.echo(f"{'ok ' if state.healthy else 'BAD'} {state.name:<24} {state.state}")
        if state.log:
            click.echo(state.log)
    click.echo(f"the cluster is not usable: {problem}" if problem else "the cluster is up and well")
    sys.exit(1 if problem else 0)


@main.command()
@click.argument("image")
def load(image: str) -> None:
    """Load IMAGE, an archive or the name of an image that was built here, into the node."""
    if Path(image).is_file():
        images.import_archive(Path(image))
    else:
        images.load_image(image)


@main.command("images")
@click.option("--no-load", is_flag=True, help="Only build.")
def build_images(no_load: bool) -> None:
    """Build the project's images and load them into the node."""
    for tag, key in project_images.build_project_images(load=not no_load).items():
        click.echo(f"{tag} {key}")


@main.command("tools")
@click.argument("rows", nargs=-1, type=click.Choice(list(tools.ROWS)))
def build_tools(rows: tuple[str, ...]) -> None:
    """Build the given ROWS of tools, or those that a cluster needs."""
    tools.ensure(*(rows or tools.CLUSTER_ROWS))
    click.echo(str(BIN))


@main.command("fake-nodes")
@click.option("--count", type=click.IntRange(0, 500), default=1, show_default=True)
@click.option("--gpus", type=click.IntRange(0, 64), default=8, show_default=True)
@click.option("--pool", default="gpu", show_default=True, help="The nodes are POOL-0, POOL-1, …")
@click.option("--resource", default="nvidia.com/gpu", show_default=True)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE")
@click.option("--taint", "taints", multiple=True, metavar="KEY[=VALUE]:EFFECT")
def fake_nodes(
    count: int, gpus: int, pool: str, resource: str, labels: tuple[str, ...], taints: tuple[str, ...]
) -> None:
    """Make nodes that accept pods and pretend to run them; a count of 0 removes the pool."""
    cluster = Cluster.local()
    if count == 0:
        cluster.remove_fake_nodes(pool)
        return
    pairs = dict(label.partition("=")[::2] for label in labels)
    names = cluster.fake_nodes(count, gpus=gpus, pool=pool, resource=resource, labels=pairs, taints=taints)
    click.echo("\n".join(names))


def _become(argv: list[str]) -> None:
    os.execvp(argv[0], argv)


@main.command(context_settings=_PASS_ON)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def kubectl(args: tuple[str, ...]) -> None:
    """Run kubectl against the cluster."""
    _become([str(tools.program("kubectl")), f"--kubeconfig={KUBECONFIG}", *args])


@main.command(context_settings=_PASS_ON)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def helm(args: tuple[str, ...]) -> None:
    """Run helm against the cluster."""
    _become([str(tools.program("helm")), f"--kubeconfig={KUBECONFIG}", *args])


@main.command()
@click.argument("component")
@click.option("--lines", default=100, show_default=True)
def logs(component: str, lines: int) -> None:
    """Print the end of a component's log (`node` is the node's first process)."""
    if not (LOGS / f"{component}.log").exists():
        known = ", ".join(sorted(path.stem for path in LOGS.glob("*.log"))) or "none"
        raise ClusterError(f"no log of {component}; there are: {known}")
    click.echo(tail(LOGS / f"{component}.log", lines))


@main.command("exec-node", context_settings=_PASS_ON)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def exec_node(command: tuple[str, ...]) -> None:
    """Run COMMAND, or a shell, in the node's namespaces."""
    os.environ["PATH"] = f"{BIN}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    _become(machine.enter(command or ["bash"]))
