"""The command ``onnx-server``. Each command imports only what it needs."""

import os
import sys
from pathlib import Path

import click

from onnx_operator import __version__
from onnx_operator.server import logs


@click.group(context_settings={"auto_envvar_prefix": "ONNX_SERVER", "show_default": True})
@click.version_option(__version__)
def main() -> None:
    """Fetch an ONNX model and serve it.

    Every option can also be given as an environment variable: ONNX_SERVER_COMMAND_OPTION, such as
    ONNX_SERVER_SERVE_PORT.
    """
    logs.configure()


@main.command()
@click.option("--attempts", type=click.IntRange(min=1), default=5, help="Tries while the source is unreachable.")
@click.option("--first-delay", type=click.FloatRange(min=0), default=1.0, help="Seconds before the second try.")
def fetch(attempts: int, first_delay: float) -> None:
    """Download what the environment variable ONNX_FETCH_PLAN (and ONNX_FETCH_PLAN_2 …) says, and nothing else."""
    from onnx_operator.server.fetching.fetch import Retries, run

    sys.exit(run(os.environ, Retries(attempts, first_delay)))


@main.command()
@click.option("--model", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The model's .onnx file.")
@click.option("--name", required=True, help="The model's name in URLs.")
@click.option("--version", default="", help="The model's version in URLs.")
@click.option("--host", default="::", help="Address to listen on; :: means all, IPv4 too.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, help="0 takes a free one (see the log).")
@click.option("--intra-op-threads", type=click.IntRange(min=1), help="Default: the CPUs of this container.")
@click.option("--inter-op-threads", type=click.IntRange(min=1), default=1, help="Above 1, branches run in parallel.")
@click.option("--workers", type=click.IntRange(min=1), help="Inferences at once. Default: the CPUs, at least 2.")
@click.option("--queue", type=click.IntRange(min=0), default=128, help="Requests that may wait for a worker.")
@click.option(
    "--execution-provider",
    "providers",
    multiple=True,
    type=click.Choice(["CPU", "CUDA", "TensorRT"], case_sensitive=False),
    default=("CPU",),
    help="In order of preference; the CPU takes what is left.",
)
@click.option("--max-body-bytes", type=click.IntRange(min=1), default=64 << 20, help="Longest request body.")
@click.option("--request-timeout", type=click.FloatRange(min=0, min_open=True), default=60.0, help="In seconds.")
@click.option("--drain-delay", type=click.FloatRange(min=0), default=1.0, help="Seconds of answering after SIGTERM.")
@click.option("--drain-timeout", type=click.FloatRange(min=1), default=20.0, help="Seconds for what then still runs.")
def serve(
    model: Path,
    name: str,
    version: str,
    host: str,
    port: int,
    intra_op_threads: int | None,
    inter_op_threads: int,
    workers: int | None,
    queue: int,
    providers: tuple[str, ...],
    max_body_bytes: int,
    request_timeout: float,
    drain_delay: float,
    drain_timeout: float,
) -> None:
    """Load a model and answer requests until SIGTERM."""
    import uvloop

    from onnx_operator.server.http.rest import Limits
    from onnx_operator.server.runtime.threads import available_cpus
    from onnx_operator.server.serve import ServeSettings, Serving

    cpus = available_cpus()
    settings = ServeSettings(
        model=model,
        name=name,
        version=version,
        host=host,
        port=port,
        providers=providers,
        intra_op_threads=intra_op_threads or cpus,
        inter_op_threads=inter_op_threads,
        limits=Limits(
            max_body_bytes=max_body_bytes,
            request_timeout=request_timeout,
            workers=workers or max(2, cpus),
            queue=queue,
        ),
        drain_delay=drain_delay,
        drain_timeout=drain_timeout,
    )
    try:
        code = uvloop.run(Serving(settings).run())
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host} port {port}: {error}") from None
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread that still loads or computes cannot be interrupted, and nothing waits for its result.
    os._exit(code)


@main.command()
def capabilities() -> None:
    """Print what this image can run, as JSON."""
    from onnx_operator.server.runtime.capabilities import capabilities_text, probe

    click.echo(capabilities_text(probe()), nl=False)


if __name__ == "__main__":
    main()
