"""A rolling update under constant load: every request is answered."""

import http.client
import json
import os
import threading
import time
from collections import Counter

import pytest

from tests import models as files
from tests.e2e.system import Models, operator_undisturbed

SECONDS = float(os.environ.get("ROLLING_UPDATE_SECONDS", "600"))
EACH_SECONDS = 30.0
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]})


class Load:
    """Clients that ask about ten times a second each: half keep their connection, half open one for each request."""

    def __init__(self, address: str, path: str) -> None:
        self._address, self._path = address, path
        self._stop = threading.Event()
        self.answers: Counter[int] = Counter()
        self.lost: list[str] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(n % 2 == 0,)) for n in range(8)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, keep: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                connection = connection or http.client.HTTPConnection(self._address, 80, timeout=30)
                connection.request("POST", self._path, BODY, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                ends = answer.getheader("connection") == "close"
                with self._lock:
                    self.answers[answer.status] += 1
            except (OSError, http.client.HTTPException) as error:
                ends = True
                with self._lock:
                    self.lost.append(f"{time.strftime('%H:%M:%S')} {'kept' if keep else 'new'} connection: {error!r}")
            if connection is not None and (ends or not keep):
                connection.close()
                connection = None
            self._stop.wait(max(0.0, 0.1 - (time.monotonic() - began)))
        if connection is not None:
            connection.close()


@pytest.mark.soak
def test_no_request_is_lost_in_rolling_updates_under_constant_load(models: Models) -> None:
    models.apply("rolled", models.upload(files.linear(31)), replicas=2)
    models.wait_ready("rolled")
    address = models.cluster.get("service", "rolled", models.namespace)["spec"]["clusterIP"]
    rollouts = 0
    with operator_undisturbed(), Load(address, "/v2/models/rolled/infer") as load:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            rollouts += 1
            # Another version rolls all pods; the model's name in URLs stays.
            models.patch("rolled", {"model": {"version": str(rollouts)}})
            began = time.monotonic()
            models.wait_ready("rolled", timeout=180)
            time.sleep(max(0.0, EACH_SECONDS - (time.monotonic() - began)))
    print(f"{rollouts} rollouts, answers {dict(load.answers)}, lost {len(load.lost)}")
    assert load.lost == []
    assert set(load.answers) == {200}
    assert load.answers[200] > 20 * SECONDS
