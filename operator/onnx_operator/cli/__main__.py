"""The plugin's commands. Each imports only what it needs."""

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_operator import __version__
from onnx_operator.cli.options import source_options
from onnx_operator.cli.output import Commands, echo, echo_json, show
from onnx_operator.cli.package import package
from onnx_operator.cli.rollouts import history, rollback
from onnx_operator.common.listening import shown_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from onnx_operator.api.report import InspectionResult


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """ONNX models on Kubernetes, and on this machine."""


def _digest(_context: click.Context, _option: click.Parameter, value: str) -> str:
    digest = value.lower().removeprefix("sha256:")
    if value and not re.fullmatch("[0-9a-f]{64}", digest):
        raise click.BadParameter(f"{value!r} is not a digest: it has 64 hex digits.")
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
@click.option(
    "--warm-up",
    "warmed",
    is_flag=True,
    help="Also load the model and run it, as a pod does before it is ready; what lies elsewhere is downloaded.",
)
@_OUTPUT
@source_options
@click.pass_context
def inspect_command(
    context: click.Context, /, uri: str, sha256: str, warmed: bool, output: str, **sources: Any
) -> None:
    """Say whether a model can run, and what it is.

    URI is a file or folder of this machine, or ADDRESSES; a file may be an archive (.zip, .tar, .tar.gz). Only what
    the verdict needs is read.

    Credentials are the store's standard variables (AWS_ACCESS_KEY_ID, AZURE_STORAGE_ACCOUNT_KEY,
    GOOGLE_SERVICE_ACCOUNT_KEY, HF_TOKEN, HTTPS_BEARER_TOKEN, DOCKERCONFIGJSON, MLFLOW_TRACKING_TOKEN …). HTTPS_HOSTS
    limits those of https:// to the hosts that it names.

    With --sha256, --public-key or --certificate-authority, files whose digest the store does not know are read whole.

    Exit codes: 0 valid, 1 refused or (with --warm-up) not able to start, 2 could not be read.
    """
    from onnx_operator.cli import tables
    from onnx_operator.cli.inspect import exit_code

    result = _inspect(uri, sha256, sources)
    code = exit_code(result)
    warmth = None
    if warmed and result.refusal is None:
        from onnx_operator.cli.fetching import fetch_model
        from onnx_operator.cli.warming import warm

        identity = sources["workload_identity"]
        warmth = warm(fetch_model(uri, result, sources["sources"], workload_identity=identity).path)
        code = int(warmth.outcome == "Failed")
    if output == "json":
        told = {} if warmth is None else {"warmUp": warmth.model_dump(mode="json", by_alias=True, exclude_none=True)}
        echo_json(_as_json(result) | told, indent=2)
    else:
        show(tables.refusal(uri, result, code == 2) if result.refusal else tables.report(uri, result))
        if warmth is not None:
            show(tables.warm_up(warmth))
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
            show(tables.refusal(uri, result, exit_code(result) == 2), to_stderr=True)
            context.exit(2)
        results.append(result.report)
    changes = compare(*results)
    breaks = any(change.breaking for change in changes)
    if output == "json":
        listed = [{"text": change.text, "breaking": change.breaking} for change in changes]
        echo_json({"compatible": not breaks, "changes": listed}, indent=2)
    else:
        before, after = (tables.facts(report) for report in results)
        rows = [(name, before[name], after[name]) for name in before if before[name] != after[name]]
        show(tables.changes(changes, rows))
    context.exit(1 if breaks else 0)


def _as_json(result: "InspectionResult") -> "dict[str, Any]":
    if result.refusal is not None:
        return {"reason": str(result.refusal.reason), "message": result.refusal.message}
    assert result.report is not None
    return result.report.model_dump(by_alias=True, exclude_none=True)


@contextmanager
def _interruptible() -> "Iterator[None]":
    """Let an interrupt end what runs, at once: asyncio only cancels, and a library may take that for a broken line."""
    import signal

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _inspect(
    uri: str, sha256: str, sources: dict[str, Any], *, typed: bool = True, whole_folder: bool = False
) -> "InspectionResult":
    from onnx_operator.cli.inspect import inspect_model
    from onnx_operator.cli.progress import reading
    from onnx_operator.model.inspection.faults import ParserError

    try:
        with _interruptible(), reading(uri) as progress:
            return inspect_model(
                uri,
                sha256,
                sources["sources"],
                sources["signatures"],
                workload_identity=sources["workload_identity"],
                typed=typed,
                whole_folder=whole_folder,
                progress=progress,
            )
    except KeyboardInterrupt:
        echo(f"{uri}: not inspected: interrupted", err=True)
        raise SystemExit(130) from None
    except Exception as error:
        # Nothing is known about the model: this must not look like a refusal, which ends with 1.
        what = str(error).strip().rpartition("\n")[2] if isinstance(error, ParserError) else repr(error)
        echo(f"{uri}: not inspected, by a fault of this program: {what:.500}", err=True)
        raise SystemExit(2) from None


def _accepted(sources: dict[str, Any]) -> "Callable[[str, str, bool, bool], InspectionResult]":
    """An inspection that ends the command where the model is refused, saying why."""

    def inspect(uri: str, sha256: str, typed: bool, whole_folder: bool) -> "InspectionResult":
        from onnx_operator.cli import tables
        from onnx_operator.cli.inspect import exit_code

        result = _inspect(uri, sha256, sources, typed=typed, whole_folder=whole_folder)
        if result.refusal is not None:
            code = exit_code(result)
            show(tables.refusal(uri, result, code == 2), to_stderr=True)
            raise SystemExit(code)
        return result

    return inspect


@main.command()
@click.argument("model")
@click.option("--name", help="The model's name in URLs. Default: that of the manifest or of the file.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; :: means all.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), default=8081, show_default=True, help="0 takes a free one.")
@click.option("--page/--no-page", default=True, show_default=True, help="A page at / to try the model.")
@click.option("--open", "open_browser", is_flag=True, help="Show the page in the browser.")
@click.option("--script", type=click.Path(path_type=Path, exists=True), help="A scoring script, or its folder.")
@click.option("--entry-script", metavar="PATH", help="The script in the folder of --script: src/score.py.")
@click.option(
    "--test-data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Inputs, with the outputs that they must give.",
)
@click.option("--warm-up", metavar="JSON", help='Inputs that cannot be guessed: {"shapes": {"audio": [1, 16000]}}.')
@click.option("--max-batch-size", type=click.IntRange(1, 4096), help="Rows of one run.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes at the port.")
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Answer under this name too, besides localhost; * is any. May be repeated.",
)
@click.option(
    "--cors-allow-origin",
    "cors_allow_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Web pages of this origin may ask and read answers; * is any. May be repeated.",
)
@click.option("--json-log", is_flag=True, help="Log as the pods do, a JSON object a line.")
@source_options
def serve(
    model: str,
    name: str | None,
    host: str,
    port: int,
    grpc_port: int,
    page: bool,
    open_browser: bool,
    script: Path | None,
    entry_script: str | None,
    test_data: Path | None,
    warm_up: str | None,
    max_batch_size: int | None,
    processes: int,
    allowed_hosts: tuple[str, ...],
    cors_allow_origins: tuple[str, ...],
    json_log: bool,
    **sources: Any,
) -> None:
    """Serve a model on this machine, with the server that runs in the cluster.

    MODEL is what inspect takes (a file, a folder, an archive, ADDRESSES), or a manifest (.yaml, .json, - for standard
    input): then its version, session, batching and scoring script count too. The model is judged first; what lies
    elsewhere is downloaded once.
    """
    from onnx_operator.cli.serving import addresses, prepare, state_folder
    from onnx_operator.common import logs
    from onnx_operator.server.__main__ import WarmUpText, run_server, serve_parameters

    inputs = WarmUpText()(warm_up) if warm_up is not None else None
    logs.configure(plain=not json_log)
    identity = sources["workload_identity"]
    prepared = prepare(
        model, name, _accepted(sources), sources["sources"], workload_identity=identity, scripted=script is not None
    )
    options = serve_parameters(prepared.arguments)
    given = {"script": script, "test_data": test_data, "warm_up": inputs, "max_batch_size": max_batch_size}
    given |= {"cors_allow_origins": cors_allow_origins or None, "entry_script": entry_script}
    options |= {option: value for option, value in given.items() if value is not None}
    options |= {"host": host, "port": port, "grpc_port": grpc_port, "page": page, "processes": processes}
    options |= {"allowed_hosts": allowed_hosts, "local": True, "state": state_folder(prepared.path)}
    options |= {"model_directory": prepared.folder}
    if port:
        grpc = None if options["script"] else grpc_port
        for line in addresses(host, port, grpc, prepared.name, page=page):
            echo(line, err=True)
    if open_browser and page and port:
        _open_when_ready(f"http://{shown_host(host)}:{port}/")
    run_server(model=prepared.path, name=prepared.name, **options)


def _open_when_ready(url: str) -> None:
    import threading
    import time
    import urllib.error
    import urllib.request

    def wait() -> None:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}v2/health/ready", timeout=5)  # noqa: S310 - our own address
            except OSError:
                time.sleep(0.1)
            else:
                click.launch(url)
                return

    threading.Thread(target=wait, daemon=True).start()


@main.command()
@click.argument("model", required=False)
@click.option("--endpoint", metavar="URL", help="Ask a running server; MODEL is then the model's name.")
@click.option(
    "--data", metavar="JSON", help="The body of /score or of an inference request; @FILE (also .csv), or - to read it."
)
@click.option("--input", "inputs", multiple=True, metavar="NAME=FILE", help="A .npy, .npz, .pb or .json file; repeat.")
@click.option(
    "--token-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The endpoint's token."
)
@_OUTPUT
@source_options
def predict(
    model: str | None,
    endpoint: str | None,
    data: str | None,
    inputs: tuple[str, ...],
    token_file: Path | None,
    output: str,
    **sources: Any,
) -> None:
    """Predict once, without a server or with a running one.

    MODEL is what serve takes. Without --data and --input the model is asked with made-up values.

    Exit codes: 0 answered, 1 refused, 2 the model or the endpoint could not be reached.
    """
    from onnx_operator.cli import predict as work

    if data is not None and inputs:
        raise click.UsageError("give the input with --data or with --input, not both")
    body = work.read_data(data) if data is not None else None
    arrays = work.read_inputs(inputs)
    if endpoint is not None:
        token = token_file.read_text().strip() if token_file else ""
        if model is None and (arrays or (body and b'"inputs"' in body)):
            raise click.UsageError("name the model: kubectl onnx predict NAME --endpoint URL")
        answer = work.predict_there(endpoint, model or "", body, arrays, token, work.media_type(data))
    elif model is None:
        raise click.UsageError("name a model, or a running server with --endpoint")
    else:
        from onnx_operator.cli.serving import prepare

        identity = sources["workload_identity"]
        prepared = prepare(model, None, _accepted(sources), sources["sources"], workload_identity=identity)
        if prepared.scripted:
            raise click.ClickException("the manifest has a scoring script: run it with serve, and ask with --endpoint")
        answer = work.predict_here(prepared.path, prepared.name, body, arrays, work.media_type(data))
    if output == "json":
        echo_json(answer)
    else:
        work.show(answer)


for command in (package, history, rollback):
    main.add_command(command)

if __name__ == "__main__":
    main()
