"""Options that say how sources are reached, shared by all commands that read one."""

import functools
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml
from pydantic import ValidationError

from onnx_operator.api.schemes import OPTIONS, SCHEMES, STORES, alternatives

if TYPE_CHECKING:
    from onnx_operator.api.signatures import SignatureSettings
    from onnx_operator.api.sources import SourceSettings

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option(
        "--settings",
        type=_FILE,
        help="The operator's settings file (or Helm values): its sources and signatures count; options override.",
    ),
    *(click.option(f"--{each.name}", envvar=each.variable, help=each.help) for each in OPTIONS),
    click.option(
        "--plain-http", multiple=True, metavar="HOST[:PORT]", help="A registry or web server that is asked without TLS."
    ),
    click.option("--ca-bundle", type=_FILE, help="PEM certificates that are trusted besides the system's."),
    click.option("--allow-network", multiple=True, metavar="CIDR", help="A private network that addresses may reach."),
    click.option("--public-key", type=_FILE, help="Refuse models that are not signed with this key (PEM)."),
    click.option(
        "--certificate-authority", type=_FILE, help="Refuse models that are not signed by a certificate of this CA."
    ),
    click.option(
        "--use-environment-identity",
        is_flag=True,
        help="Without keys, use the cloud identity of this machine (profiles, metadata services).",
    ),
)


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which gets ``sources``, ``signatures`` and ``workload_identity`` for them.

    ADDRESSES in the command's help becomes a list of those that sources read.
    """

    @functools.wraps(command)
    def wrapper(**given: Any) -> Any:
        from onnx_operator.api.signatures import SignatureSettings
        from onnx_operator.api.sources import SourceSettings

        options = {name: given.pop(name) for name in _NAMES}
        sources, signatures = _documents(options["settings"])
        _merge(sources, options)
        for name, key in (("publicKeys", "public_key"), ("certificateAuthorities", "certificate_authority")):
            if options[key]:
                signatures |= {name: _text(options[key], key), "required": True}
        try:
            found, trusted = SourceSettings.model_validate(sources), SignatureSettings.model_validate(signatures)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise click.UsageError(f"the settings are wrong: {problems}") from None
        _check(found, trusted)
        identity = options["use_environment_identity"]
        return command(sources=found, signatures=trusted, workload_identity=identity, **given)

    addresses = alternatives([f"{scheme.prefix}…" for scheme in SCHEMES.values() if not scheme.mounted])
    wrapper.__doc__ = (command.__doc__ or "").replace("ADDRESSES", addresses)
    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper


_NAMES = (
    "settings",
    *(each.name.replace("-", "_") for each in OPTIONS),
    *("plain_http", "ca_bundle", "allow_network", "public_key", "certificate_authority", "use_environment_identity"),
)


def _check(sources: "SourceSettings", signatures: "SignatureSettings") -> None:
    for network in sources.allowed_networks:
        try:
            ip_network(network, strict=False)
        except ValueError:
            raise click.UsageError(f"--allow-network: {network!r} is not a network; write it as 10.0.0.0/8.") from None
    if signatures.required:
        from onnx_operator.model.signatures.signing import SignatureError, check_settings

        try:
            check_settings(signatures)
        except SignatureError as error:
            raise click.UsageError(f"the settings are wrong: {error}") from None


def _text(path: Path, option: str) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--{option.replace('_', '-')} {path} is not a PEM file: {error}") from None


def _documents(path: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    if path is None:
        return {}, {}
    try:
        values = dict(yaml.safe_load(path.read_text()) or {})
        document: dict[str, Any] = values.get("settings", values)
        return dict(document.get("sources") or {}), dict(document.get("signatures") or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise click.UsageError(f"--settings {path} is not a settings file: {error}") from None


def _merge(sources: dict[str, Any], options: dict[str, Any]) -> None:
    for each in OPTIONS:
        value = options[each.name.replace("-", "_")]
        if value:
            sources.setdefault(each.store, {})[each.field] = value
    if options["plain_http"]:
        for store, field in (("oci", "plainHttpRegistries"), ("https", "plainHttpHosts")):
            sources.setdefault(store, {})[field] = list(options["plain_http"])
    if options["allow_network"]:
        sources["allowedNetworks"] = list(options["allow_network"])
    if options["ca_bundle"]:
        pem = _text(options["ca_bundle"], "ca_bundle")
        for store in STORES:
            sources.setdefault(store, {})["caBundle"] = pem
