"""The plugin's commands. Each imports only what it needs."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_operator import __version__
from onnx_operator.cli.options import source_options
from onnx_operator.cli.package import package

if TYPE_CHECKING:
    from onnx_operator.api.report import InspectionResult


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """ONNX models on Kubernetes, and on this machine."""


def _digest(_context: click.Context, _option: click.Parameter, value: str) -> str:
    digest = value.lower().removeprefix("sha256:")
    if value and not re.fullmatch("[0-9a-f]{64}", digest):
        raise click.BadParameter(f"{value!r} is no digest: it has 64 hex digits.")
    return digest


_OUTPUT = click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)


@main.command(name="inspect")
@click.argument("uri")
@click.option(
    "--sha256",
    default="",
    callback=_digest,
    metavar="DIGEST",
    help="Refuse a file with another digest (64 hex digits).",
)
@_OUTPUT
@source_options
@click.pass_context
def inspect_command(context: click.Context, /, uri: str, sha256: str, output: str, **sources: Any) -> None:
    """Say whether a model can run, and what it is.

    URI is a file or folder of this machine, or https://…, s3://…, gs://…, az://…, abfss://…, oci://…, hf://…,
    mlflow://… or models:/…; a file may be an archive (.zip, .tar, .tar.gz). Only what the verdict needs is read.

    Credentials are the store's standard variables (AWS_ACCESS_KEY_ID, AZURE_STORAGE_ACCOUNT_KEY,
    GOOGLE_SERVICE_ACCOUNT_KEY, HF_TOKEN, HTTPS_BEARER_TOKEN, DOCKERCONFIGJSON, MLFLOW_TRACKING_TOKEN …).

    With --sha256, --public-key or --certificate-authority, files whose digest the store does not know are read whole.

    Exit codes: 0 valid, 1 refused, 2 could not be read.
    """
    from onnx_operator.cli import tables
    from onnx_operator.cli.inspect import exit_code

    result = _inspect(uri, sha256, sources)
    code = exit_code(result)
    if output == "json":
        click.echo(_as_json(result))
    else:
        tables.show(tables.refusal(uri, result, code == 2) if result.refusal else tables.report(uri, result))
    context.exit(code)


@main.command()
@click.argument("old")
@click.argument("new")
@_OUTPUT
@source_options
@click.pass_context
def diff(context: click.Context, /, old: str, new: str, output: str, **sources: Any) -> None:
    """Say whether those who call the model OLD could call NEW as well.

    Exit codes: 0 they could, 1 they would break, 2 one of the models is refused or could not be read.
    """
    from onnx_operator.cli import tables
    from onnx_operator.cli.inspect import exit_code
    from onnx_operator.model.comparison import compare

    results = []
    for uri in (old, new):
        result = _inspect(uri, "", sources)
        if result.refusal or result.report is None:
            tables.show(tables.refusal(uri, result, exit_code(result) == 2), to_stderr=True)
            context.exit(2)
        results.append(result.report)
    changes = compare(*results)
    breaks = any(change.breaking for change in changes)
    if output == "json":
        listed = [{"text": change.text, "breaking": change.breaking} for change in changes]
        click.echo(json.dumps({"compatible": not breaks, "changes": listed}, indent=2, ensure_ascii=False))
    else:
        before, after = (tables.facts(report) for report in results)
        rows = [(name, before[name], after[name]) for name in before if before[name] != after[name]]
        tables.show(tables.changes(changes, rows))
    context.exit(1 if breaks else 0)


def _as_json(result: "InspectionResult") -> str:
    if result.refusal is not None:
        return result.refusal.model_dump_json(indent=2, include={"reason", "message"})
    assert result.report is not None
    return result.report.model_dump_json(by_alias=True, indent=2, exclude_none=True)


def _inspect(uri: str, sha256: str, sources: dict[str, Any]) -> "InspectionResult":
    from onnx_operator.cli.inspect import inspect_model
    from onnx_operator.cli.progress import reading
    from onnx_operator.model.inspection.isolation import ParserError

    try:
        with reading(uri) as progress:
            return inspect_model(
                uri,
                sha256,
                sources["sources"],
                sources["signatures"],
                workload_identity=sources["workload_identity"],
                progress=progress,
            )
    except (ParserError, KeyboardInterrupt) as error:
        # Nothing is known about the model: neither of these must look like a refusal, which ends with 1.
        click.echo(f"{uri}: not inspected: {str(error) or 'interrupted'}", err=True)
        raise SystemExit(2 if isinstance(error, ParserError) else 130) from None


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


main.add_command(package)

if __name__ == "__main__":
    main()
