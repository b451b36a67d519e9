"""The command ``onnx-server``. Each command imports only what it needs."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from onnx_operator import __version__
from onnx_operator.common import logs
from onnx_operator.server import plugins

logger = logging.getLogger(__name__)

plugins.keep_out(os.environ)


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
    from onnx_operator.server.runtime.threads import available_cpus, limit_libraries

    # First: the store's client starts its threads when it is first asked, and one alone would wait for the hashing.
    limit_libraries(os.environ, max(2, available_cpus()))
    from onnx_operator.server.fetching.fetch import Retries, run

    sys.exit(run(os.environ, Retries(attempts, first_delay)))


class WarmUpText(click.ParamType[Any]):
    """JSON of :class:`~onnx_operator.api.contract.WarmUpInputs`."""

    name = "JSON"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """Parse; a message names the field at fault."""
        from pydantic import ValidationError

        from onnx_operator.api.warm_up import WarmUpInputs

        if isinstance(value, WarmUpInputs):
            return value
        try:
            return WarmUpInputs.model_validate_json(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            self.fail(f"{'.'.join(map(str, first['loc'])) or 'the text'}: {first['msg']}", param, context)


_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_SERVE_OPTIONS = (
    click.option("--model", type=click.Path(path_type=Path), required=True, help="The model's .onnx file."),
    click.option("--name", required=True, help="The model's name in URLs."),
    click.option("--version", default="", help="The model's version in URLs."),
    click.option("--host", default="::", help="Address to listen on; :: means all, IPv4 too."),
    click.option("--port", type=click.IntRange(0, 65535), default=8080, help="0 takes a free one (see the log)."),
    click.option("--grpc-port", type=click.IntRange(0, 65535), help="Serve gRPC there too; 0 takes a free one."),
    click.option("--intra-op-threads", type=click.IntRange(min=1), help="Default: the container's CPUs."),
    click.option(
        "--inter-op-threads", type=click.IntRange(min=1), default=1, help="Above 1, branches run in parallel."
    ),
    click.option(
        "--processes",
        type=click.IntRange(1, 64),
        help="Processes behind the port. Default: one for each CPU if the model runs in under a millisecond and the "
        "memory suffices, else 1.",
    ),
    click.option("--workers", type=click.IntRange(min=1), help="Inferences at once. Default: the CPUs, at least 2."),
    click.option("--queue", type=click.IntRange(min=0), default=128, help="Requests that may wait for a worker."),
    click.option(
        "--execution-provider",
        "providers",
        multiple=True,
        type=click.Choice(["CPU", "CUDA", "TensorRT"], case_sensitive=False),
        default=("CPU",),
        help="In order of preference; the CPU takes what is left.",
    ),
    click.option(
        "--on-fallback",
        type=click.Choice(["Serve", "Fail"], case_sensitive=False),
        default="Serve",
        help="What to do when operators fall to the CPU although a GPU was asked for.",
    ),
    click.option(
        "--max-batch-size", type=click.IntRange(1, 4096), default=32, help="Rows of one run; 1 runs each request alone."
    ),
    click.option(
        "--assume-independent-rows/--no-assume-independent-rows",
        default=False,
        help="Let requests share a run where it is not proven that rows do not meet: you know that they do not.",
    ),
    click.option(
        "--max-delay-milliseconds",
        type=click.FloatRange(0, 1000),
        default=0.0,
        help="How long a request waits for others to run with; 0 runs what is waiting already.",
    ),
    click.option(
        "--test-data",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="Test data: inputs and outputs (test_data_set_N folders) that the model must reproduce.",
    ),
    click.option(
        "--warm-up",
        type=WarmUpText(),
        metavar="JSON",
        help='Inputs that cannot be guessed: {"shapes": {"audio": [1, 16000]}, "values": {"speed": [1.0]}}. Values '
        "fill a tensor in turn, again and again.",
    ),
    click.option(
        "--kept-inputs", type=WarmUpText(), metavar="JSON", help="What warmed up the version before: tried first."
    ),
    click.option("--require-warm-up", is_flag=True, help="Refuse a model for which no input is found."),
    click.option(
        "--state-directory",
        "state",
        type=click.Path(path_type=Path, file_okay=False),
        help="A folder that outlives a restart: made-up inputs that killed the server are noted there.",
    ),
    click.option(
        "--script",
        type=click.Path(path_type=Path, exists=True),
        help="A scoring script with init() and run(raw_data), or its folder: it answers /score.",
    ),
    click.option(
        "--entry-script",
        default="",
        metavar="PATH",
        help="The script in the folder of --script, as in src/score.py. Default: score.py, the only Python file, or "
        "the only score.py in the folders within.",
    ),
    click.option(
        "--requirements-directory",
        "requirements",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where the script's packages are (see install-requirements).",
    ),
    click.option("--page/--no-page", default=False, help="A page at / to try the model and see its graph."),
    click.option(
        "--allowed-host",
        "allowed_hosts",
        multiple=True,
        metavar="NAME",
        help="Refuse requests whose Host is neither this name nor the loopback's, and pages of other origins. May be "
        "repeated. Default: any host.",
    ),
    click.option(
        "--cors-allow-origin",
        "cors_allow_origins",
        multiple=True,
        metavar="ORIGIN",
        help="Web pages of this origin (https://app.example.com; * is any) may ask and read answers. May be repeated; "
        "AML_CORS_ORIGINS, a list with commas, adds to them.",
    ),
    click.option("--max-body-bytes", type=click.IntRange(min=1), default=64 << 20, help="Longest request body."),
    click.option(
        "--memory-budget",
        type=click.IntRange(min=1 << 20),
        help="Bytes of memory that all requests of one process may take. Default: what the container's limit leaves.",
    ),
    click.option("--request-timeout", type=click.FloatRange(min=0, min_open=True), default=5.0, help="In seconds."),
    click.option("--tls-certificate", type=_FILE, help="PEM certificate (with its chain): serve TLS only."),
    click.option("--tls-key", type=_FILE, help="Its key, PEM."),
    click.option("--tls-client-ca", type=_FILE, help="PEM certificates of CAs: only their clients are let in."),
    click.option("--token-file", type=_FILE, help="A file with a bearer token that requests must carry."),
    click.option("--access-log/--no-access-log", default=False, help="Log every request, not only failures."),
    click.option(
        "--drain-delay", type=click.FloatRange(min=0), default=1.0, help="Seconds of answering after SIGTERM."
    ),
    click.option(
        "--drain-timeout", type=click.FloatRange(min=1), default=20.0, help="Seconds for what then still runs."
    ),
)


def serve_options(command: Any) -> Any:
    """Add the options of ``serve`` to a command that takes them as keywords."""
    for option in reversed(_SERVE_OPTIONS):
        command = option(command)
    return command


def serve_parameters(arguments: Sequence[str]) -> dict[str, Any]:
    """What the arguments say, and the defaults for all that they do not, for :func:`run_server`."""
    parsed = serve.make_context("serve", ["--model=.", "--name=.", *arguments]).params
    return {name: value for name, value in parsed.items() if name not in ("model", "name")}


@main.command()
@serve_options
def serve(**options: Any) -> None:
    """Load a model and answer requests until SIGTERM."""
    run_server(**options)


def run_server(
    *,
    model: Path,
    name: str,
    on_fallback: str,
    max_delay_milliseconds: float,
    max_body_bytes: int,
    request_timeout: float,
    workers: int | None,
    queue: int,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    token_file: Path | None,
    allowed_hosts: tuple[str, ...] = (),
    cors_allow_origins: tuple[str, ...] = (),
    local: bool = False,
    **settings: Any,
) -> None:
    """Serve until SIGTERM, then end the process. Takes the options of ``serve``; raises click's exceptions.

    With ``local`` requests must name this machine even where no host is allowed besides.
    """
    from onnx_operator.server.runtime.threads import available_cpus, limit_libraries

    # First: numpy starts its threads when it is imported.
    limit_libraries(os.environ, settings.get("intra_op_threads") or available_cpus())
    import uvloop

    from onnx_operator.server.http.limits import Limits
    from onnx_operator.server.serve import ServeSettings, Serving
    from onnx_operator.server.tls import TlsFiles

    if (tls_certificate is None) != (tls_key is None):
        raise click.UsageError("--tls-certificate and --tls-key go together.")
    if tls_client_ca is not None and tls_certificate is None:
        raise click.UsageError("--tls-client-ca needs --tls-certificate and --tls-key.")
    found = ServeSettings(
        model=model,
        name=name,
        fail_on_fallback=on_fallback == "Fail",
        max_delay=max_delay_milliseconds / 1000,
        limits=Limits(
            max_body_bytes=max_body_bytes,
            request_timeout=request_timeout,
            workers=workers or max(2, available_cpus()),
            queue=queue,
        ),
        tls=TlsFiles(tls_certificate, tls_key, tls_client_ca) if tls_certificate and tls_key else None,
        token=_token(token_file) if token_file else "",
        allowed_hosts=allowed_hosts if allowed_hosts or local else None,
        cors_origins=_origins(cors_allow_origins),
        **settings,
    )
    try:
        code = uvloop.run(Serving(found).run())
    except OSError as error:
        raise click.ClickException(f"cannot listen on {found.host} port {found.port}: {error}") from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread that still loads or computes cannot be interrupted, and nothing waits for its result.
    os._exit(code)


def _origins(given: tuple[str, ...]) -> tuple[str, ...]:
    from onnx_operator.api.origins import read_azure_origins, read_origin

    try:
        found = [read_origin(each) for each in given]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--cors-allow-origin") from None
    added, wrong = read_azure_origins(os.environ.get("AML_CORS_ORIGINS", ""))
    for entry in wrong:
        logger.warning("AML_CORS_ORIGINS: %r is not an origin such as https://app.example.com; it is left out", entry)
    return (*found, *added)


def _token(path: Path) -> str:
    token = path.read_text().strip()
    if not token or not token.isascii() or any(character.isspace() for character in token):
        raise click.BadParameter(f"{path} must hold one word, the token.", param_hint="--token-file")
    return token


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8080, help="Where the server listens.")
@click.option("--timeout", type=click.FloatRange(min=0), default=1800.0, help="Seconds until it is given up.")
@click.option("--tls/--no-tls", default=False, help="Whether the server speaks TLS.")
def wait(port: int, timeout: float, tls: bool) -> None:
    """Wait until the server beside this is ready; a startup probe that fails only where the start did.

    Fails after the timeout, and says how far the server is.
    """
    from onnx_operator.server import waiting

    if told := waiting.wait(port, timeout, waiting.connect_tls if tls else waiting.connect):
        raise click.ClickException(told)


@main.command(name="install-requirements")
@click.option("--target", type=click.Path(path_type=Path, file_okay=False), required=True, help="The folder to fill.")
@click.option("--requirement", "requirements", multiple=True, metavar="NAME==VERSION", help="May be repeated.")
@click.option("--file", "files", multiple=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--conda", "conda_files", multiple=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def install_requirements(
    target: Path, requirements: tuple[str, ...], files: tuple[Path, ...], conda_files: tuple[Path, ...]
) -> None:
    """Install a script's pinned packages: requirements, requirements.txt files, the pip part of conda files."""
    from onnx_operator.server.script.requirements import run

    sys.exit(run(target, requirements, files, conda_files))


@main.command()
def capabilities() -> None:
    """Print what this image can run, as JSON."""
    from onnx_operator.server.runtime.capabilities import capabilities_text, probe

    click.echo(capabilities_text(probe()), nl=False)


if __name__ == "__main__":
    main()
