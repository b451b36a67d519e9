"""Resolves ``requirements/*.txt`` anew from pyproject.toml: versions and hashes, no addresses."""

import subprocess
import sys
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
PYTHON_VERSION = "3.11"
HEADER = "# Made by `make lock` from pyproject.toml: do not edit.\n"
LOCKS: dict[str, list[str]] = {
    "operator": ["--extra", "controller"],
    "server": ["--extra", "server"],
    "server-gpu": ["--extra", "server-gpu"],
    "dev": ["--extra", "controller", "--extra", "server", "--extra", "cli", "--extra", "otel", "--group", "dev"],
}


def lock(name: str, options: list[str]) -> None:
    """Write one file."""
    target = ROOT / "requirements" / f"{name}.txt"
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", *options),
        *("--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
        *("--python-version", PYTHON_VERSION, "--python-platform", "x86_64-manylinux_2_28", "--quiet", "--upgrade"),
    ]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    target.write_text(HEADER + done.stdout)
    click.echo(f"{target.relative_to(ROOT)}: {done.stdout.count('==')} packages")


if __name__ == "__main__":
    for lock_name, lock_options in LOCKS.items():
        lock(lock_name, lock_options)
