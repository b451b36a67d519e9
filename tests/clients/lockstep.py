"""What the clients' processes share: they run one job for each number that they read, and write all results at last.

Imported as a plain module by scripts in other environments: nothing but the standard library.
"""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = dict[str, Any]
Run = Callable[[Job], dict[str, Any]]


def follow(runs: dict[str, Run]) -> None:
    """``runs`` holds by mode how to ask: a job to the outputs' datatypes and arrays by name."""
    jobs, results_file = Path(sys.argv[3]), Path(sys.argv[4])
    with jobs.open("rb") as file:
        todo: list[Job] = pickle.load(file)
    results: dict[tuple[str, str], Any] = {}
    print("ready", flush=True)
    for line in sys.stdin:
        job = todo[int(line)]
        for mode, run in runs.items():
            if mode not in job["modes"]:
                continue
            try:
                results[job["name"], mode] = run(job)
            except Exception as error:
                results[job["name"], mode] = f"{type(error).__name__}: {error}"
        print("done", flush=True)
    with results_file.open("wb") as file:
        pickle.dump(results, file)
