"""Command line of the operator: ``controller``; in a container of its own ``inspector``, in a pod ``inspect-once``."""

import asyncio
import logging
import os
import sys
from pathlib import Path

import click

from onnx_operator import __version__
from onnx_operator.api.names import SOURCE_DIRECTORY
from onnx_operator.common import logs
from onnx_operator.common.listening import ANY_V6
from onnx_operator.controller.settings.settings import SettingsError, load_settings
from onnx_operator.model.limits import InspectionLimits

LIBRARY_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKIO_WORKER_THREADS": "4"}
"""Threads of numpy, which calculates nothing here, and of obstore: without, one for each CPU of the node."""
SOCKET = Path("/run/onnx-operator/inspector.sock")


@click.group(context_settings={"auto_envvar_prefix": "ONNX_OPERATOR", "help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
)
def main(log_level: str) -> None:
    """Turn OnnxModels into scoring services."""
    logs.configure(logging.getLevelNamesMapping()[log_level.upper()])
    for name, count in LIBRARY_THREADS.items():
        os.environ.setdefault(name, count)


def _settings_option(function: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--settings",
        "settings_path",
        type=click.Path(path_type=Path),
        default=Path("/etc/onnx-operator/settings.yaml"),
        show_default=True,
        help="The operator's settings, a YAML file.",
    )(function)


def _socket_option(function: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--inspector-socket",
        type=click.Path(path_type=Path),
        default=SOCKET,
        show_default=True,
        help="The Unix socket between controller and inspector.",
    )(function)


@main.command()
@_settings_option
@_socket_option
@click.option("--namespace", default="onnx-operator-system", show_default=True, help="Where the Lease is kept.")
@click.option("--lease-name", default="onnx-operator", show_default=True, help="Name of the Lease.")
@click.option("--kubeconfig", default=None, help="Cluster to work on; default: the one this pod runs in.")
@click.option("--host", default=ANY_V6, show_default=True, help="Address of the endpoints; :: means all, IPv4 too.")
@click.option("--port", default=8080, show_default=True, help="Port of /healthz, /readyz and /metrics.")
def controller(
    settings_path: Path,
    inspector_socket: Path,
    namespace: str,
    lease_name: str,
    kubeconfig: str | None,
    host: str,
    port: int,
) -> None:
    """Watch OnnxModels and reconcile them."""
    from onnx_operator.controller.app import InspectorGoneError, Options, run_controller

    try:
        settings = load_settings(settings_path)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    options = Options(
        inspector_socket=inspector_socket,
        namespace=namespace,
        lease_name=lease_name,
        kubeconfig=kubeconfig,
        host=host,
        port=port,
    )
    try:
        asyncio.run(run_controller(settings, options))
    except InspectorGoneError as error:
        # Started anew, it stands by until there is an inspector.
        raise click.ClickException(str(error)) from error


@main.command()
@_settings_option
@_socket_option
def inspector(settings_path: Path, inspector_socket: Path) -> None:
    """Read models for the controller. Runs without any cluster credential."""
    from onnx_operator.inspector import service

    try:
        settings = load_settings(settings_path)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    limits = InspectionLimits(
        max_model_bytes=settings.inspection.max_model_bytes,
        max_nodes=settings.inspection.max_nodes,
        timeout_seconds=settings.inspection.timeout_seconds,
    )
    policy = service.Policy(
        operator_identity=settings.sources.use_operator_identity, signatures=settings.signatures.required
    )
    service.run(inspector_socket, limits, policy)


@main.command(name="inspect-once")
@click.option("--max-model-bytes", type=click.IntRange(min=1), required=True, help="Larger models are refused.")
@click.option(
    "--max-nodes",
    type=click.IntRange(min=1),
    default=InspectionLimits.max_nodes,
    show_default=True,
    help="Larger structures are refused.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=Path(SOURCE_DIRECTORY),
    show_default=True,
    help="Where the claim of a pvc source is mounted.",
)
def inspect_once(max_model_bytes: int, max_nodes: int, root: Path) -> None:
    """Read one model, in a pod that the operator makes beside it, and report in one line of the log."""
    from onnx_operator.inspector import once

    # One model is all that this process will ever read.
    limits = InspectionLimits(max_model_bytes=max_model_bytes, max_nodes=max_nodes, parsers=1)
    sys.exit(once.run(os.environ, limits, root, sys.stdout))


if __name__ == "__main__":
    main()
