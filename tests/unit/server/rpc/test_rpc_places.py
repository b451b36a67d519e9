"""Few messages are taken in at once, in turns by the address that they come from."""

from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Lock, Thread
from time import sleep

from onnx_operator.server.rpc.places import Places


def _waits(places: Places, address: str, order: list[str]) -> Thread:
    def take() -> None:
        assert places.acquire(address, 30)
        order.append(address)

    thread = Thread(target=take)
    before = sum(len(gates) for gates in places._waiting.values())
    thread.start()
    while sum(len(gates) for gates in places._waiting.values()) == before:
        sleep(0.001)
    return thread


def test_an_address_that_has_taken_all_places_and_waits_for_more_is_behind_another_that_has_none() -> None:
    places, order = Places(2), []
    assert places.acquire("greedy", 1)
    assert places.acquire("greedy", 1)
    threads = [_waits(places, "greedy", order) for _ in range(5)] + [_waits(places, "honest", order)]
    assert places.wanted
    for _ in range(6):
        places.release("greedy" if "greedy" in places._held else "honest")
        while len(order) < _ + 1:
            sleep(0.001)
    for thread in threads:
        thread.join(10)
    assert order[0] == "honest"
    assert not places.wanted


def test_who_waits_for_too_long_is_told_and_leaves_no_trace() -> None:
    places = Places(1)
    assert places.acquire("a", 1)
    assert not places.acquire("b", 0.01)
    assert not places.wanted
    places.release("a")
    assert places.acquire("b", 0.01)


def test_never_more_than_there_are_and_none_is_lost() -> None:
    places, lock, now, most = Places(3), Lock(), [0], [0]

    def use(seed: int) -> int:
        random, taken = Random(seed), 0
        for _ in range(200):
            address = f"address-{random.randrange(4)}"
            if not places.acquire(address, random.choice([0, 0.0001, 5])):
                continue
            taken += 1
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            if random.random() < 0.2:
                sleep(0.0001)
            with lock:
                now[0] -= 1
            places.release(address)
        return taken

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(use, range(12))) > 0
    assert most[0] <= 3
    assert places._free == 3
    assert not places._held
    assert not places.wanted
