"""The plugin's commands. Each imports only what it needs."""

from pathlib import Path

import click

from onnx_operator import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """ONNX models on Kubernetes, and on this machine."""


@main.command()
@click.argument("uri")
@click.option("--sha256", default="", help="Refuse a file with another digest (64 hex digits).")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--s3-endpoint", envvar="AWS_ENDPOINT_URL", default="", help="An S3-compatible store; default: Amazon.")
@click.option("--s3-region", envvar="AWS_REGION", default="us-east-1", show_default=True)
@click.option("--allow-network", multiple=True, metavar="CIDR", help="A private network that https may reach.")
@click.pass_context
def inspect(
    context: click.Context,
    uri: str,
    sha256: str,
    output: str,
    s3_endpoint: str,
    s3_region: str,
    allow_network: tuple[str, ...],
) -> None:
    """Say whether a model can run, and what it is: a file, https://… or s3://….

    Credentials are read from the store's standard variables (AWS_ACCESS_KEY_ID, HTTPS_BEARER_TOKEN …).

    Exit codes: 0 valid, 1 refused, 2 could not be read.
    """
    from onnx_operator.api.sources import S3Settings, SourceSettings
    from onnx_operator.cli.inspect import describe, exit_code, inspect_model

    settings = SourceSettings(
        allowed_networks=list(allow_network), s3=S3Settings(endpoint=s3_endpoint, region=s3_region)
    )
    result = inspect_model(uri, sha256, settings)
    if output == "json":
        shown = result.refusal or result.report
        click.echo(shown.model_dump_json(by_alias=True, indent=2, exclude_none=True) if shown else "{}")
    else:
        click.echo(describe(uri, result))
    context.exit(exit_code(result))


@main.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", default=None, help="The model's name in URLs; default: the file's name.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.pass_context
def serve(context: click.Context, model: Path, name: str | None, host: str, port: int) -> None:
    """Serve a model file on this machine, with the server that runs in the cluster."""
    from onnx_operator.server import logs
    from onnx_operator.server.__main__ import serve as serve_command

    # The server's own log tells the address once it listens, and when it is ready.
    logs.configure()
    context.invoke(serve_command, model=model, name=name or model.stem, host=host, port=port)


if __name__ == "__main__":
    main()
