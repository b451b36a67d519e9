"""Runs all levels of tests, one after the other, and tells at the end how many ran at each.

A level that fails does not stop the next: one run shows everything that is wrong. A level in which no test ran fails.
"""

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]


@dataclass
class Level:
    """Outcome of one level."""

    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    ok: bool = False


def _counts(report: Path, level: Level) -> None:
    if not report.exists():
        return
    for suite in ET.parse(report).getroot().iter("testsuite"):
        total, bad = int(suite.get("tests", 0)), int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        level.passed += total - bad - skipped
        level.failed += bad
        level.skipped += skipped


INTEGRATION = ["tests/integration", "tests/clients", "tests/examples", "tests/browser"]
"""Folders of tests against programs that are not ours: API servers, stores, clients of others, a browser."""

FUZZ_SECONDS = "130"
"""For each fuzzer in the soak: about an hour for all of them, two at a time."""


def _pytest(name: str, arguments: list[str], directory: Path) -> Level:
    level, report = Level(name), directory / f"{name}.xml"
    started = time.monotonic()
    code = subprocess.run(
        [sys.executable, "-m", "pytest", f"--junitxml={report}", "-q", *arguments], cwd=ROOT, check=False
    ).returncode
    level.seconds = time.monotonic() - started
    _counts(report, level)
    # Exit code 5: nothing was collected, which is a failure of the suite, not a success.
    level.ok = code == 0 and level.passed > 0
    return level


def _lint() -> Level:
    started = time.monotonic()
    code = subprocess.run(["make", "--no-print-directory", "lint"], cwd=ROOT, check=False).returncode
    return Level("lint", passed=int(code == 0), failed=int(code != 0), seconds=time.monotonic() - started, ok=code == 0)


@click.command()
@click.option("--soak", is_flag=True, help="Run the long forms of the tests instead.")
def main(soak: bool) -> None:
    """Run lint, unit, integration and end-to-end tests."""
    workers = os.environ.get("E2E_WORKERS", "4")
    levels = []
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        if soak:
            # What the seeded examples do not find, new ones may.
            os.environ["HYPOTHESIS_PROFILE"] = "default"
            soak = ["tests/unit", "tests/security", *INTEGRATION, "tests/corpus", "tests/e2e", "-m", "soak"]
            levels.append(_pytest("soak", soak, directory))
            os.environ["FUZZ_SECONDS"] = os.environ.get("FUZZ_SECONDS", FUZZ_SECONDS)
            levels.append(_pytest("fuzz", ["tests/security", "-n", "2", "-m", "fuzz"], directory))
        else:
            levels.append(_lint())
            levels.append(_pytest("unit", ["tests/unit", "-n", "2", "-m", "not soak"], directory))
            levels.append(
                _pytest("integration", [*INTEGRATION, "-n", "2", "-m", "not soak and not examples"], directory)
            )
            attacks = ["tests/security", "--ignore=tests/security/pods", "-n", "2", "-m", "not soak"]
            levels.append(_pytest("security", attacks, directory))
            e2e = [
                "tests/e2e",
                "tests/security/pods",
                "-n",
                workers,
                "--dist",
                "loadgroup",
                "-m",
                "not soak and not examples",
            ]
            levels.append(_pytest("end-to-end", e2e, directory))
            # By itself, since it installs the operator with settings of its own.
            levels.append(_pytest("examples", ["tests/e2e", "-m", "examples"], directory))
    click.echo("\nlevel         passed  failed  skipped    time")
    for level in levels:
        mark = "" if level.ok else "   FAILED"
        click.echo(
            f"{level.name:<13} {level.passed:>6}  {level.failed:>6}  {level.skipped:>7}  {level.seconds:>5.0f} s{mark}"
        )
    click.echo(f"\n{sum(x.passed for x in levels)} passed, {sum(x.failed for x in levels)} failed")
    sys.exit(0 if all(level.ok for level in levels) else 1)


if __name__ == "__main__":
    main()
