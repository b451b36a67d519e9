"""What happens to an operator and its models, decided by a seed. Pure.

Moments are counted in calls that the operator makes, so that a plan meets the same point of its work again, however
fast the machine is; where an operator has nothing to do, or is dead, patience ends the wait.
"""

import json
import random
from dataclasses import dataclass, field
from typing import Any

Spec = dict[str, Any]

NAMES = ("quince", "medlar", "damson")
"""Of models; words that nothing else contains, so that they can be replaced in texts."""
SOUR = "sloe"
"""The name of a model that is refused for as long as it lives."""
GOOD = ("a", "b", "c")
"""Files that are models."""
BAD = ("unknown", "missing")
"""Files that are none that could be served."""
WRITES_IN_TURN = 24
"""The first kill of a seed comes at one of so many writes of an operator's life, the next seed's at the next."""
LONE_EVERY, UNHURRIED_EVERY = 10, 9
"""Of so many seeds one restarts API server and etcd; one waits as long as in production."""

CHILDREN = ("deployments", "services", "poddisruptionbudgets", "controllerrevisions", "replicasets")


@dataclass(frozen=True)
class Step:
    """Something that happens, once the operator has made so many more calls."""

    after: int
    action: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"after {self.after} calls: {self.action} {json.dumps(self.arguments, sort_keys=True)}"


@dataclass(frozen=True)
class Plan:
    """All that a seed decides."""

    seed: int
    steps: tuple[Step, ...]
    finals: dict[str, Spec]
    """Specs of the models that are there in the end, by name."""
    replicas: int
    """Operators, of which one leads."""
    hurried: bool
    """Whether leases are shorter than in production."""
    lone: bool
    """Whether API server and etcd are restarted, which others would notice."""


class _Draft:
    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.steps: list[Step] = []
        self.live: dict[str, Spec] = {}
        self.paused: set[str] = set()
        self.scaled: dict[str, int] = {}

    def add(self, action: str, **arguments: Any) -> None:
        self.steps.append(Step(self.chance.choice((0, 0, 1, 2, 3, 5, 8)), action, arguments))

    # --- specs --------------------------------------------------------------------------------------------------------

    def spec(self, *, good: bool = True) -> Spec:
        """A spec of few kinds: what an undisturbed operator makes of each is found out once a run."""
        pick = self.chance.choice
        spec: Spec = {"model": {"file": pick(GOOD if good else BAD)}, "replicas": pick((1, 1, 2, 2, 3, 0))}
        if pick((True, False, False)):
            spec["model"]["version"] = "v2"
        if pick((True, False, False)):
            spec["session"] = {"intraOpThreads": 2}
        if pick((True, False, False)):
            spec["model"]["tags"] = {"team": "orchard"}
        if pick((True, *[False] * 9)):
            spec["suspend"] = True
        return spec

    def edited(self, spec: Spec) -> Spec:
        """One part of a spec is another's."""
        other = self.spec(good=self.chance.random() < 0.85)
        made: Spec = json.loads(json.dumps(spec))
        part = self.chance.choice(("file", "file", "version", "tags", "replicas", "replicas", "session", "suspend"))
        where = made["model"] if part in ("file", "version", "tags") else made
        value = (other["model"] if where is made["model"] else other).get(part)
        where.pop(part, None)
        if value is not None:
            where[part] = value
        return made

    # --- what users do ------------------------------------------------------------------------------------------------

    def create(self, name: str) -> None:
        self.live[name] = self.spec(good=self.chance.random() < 0.85)
        self.add("create", name=name, spec=self.live[name])

    def edit(self, name: str) -> None:
        before = self.live[name]
        while self.live[name] == before:
            self.live[name] = self.edited(before)
        self.add("edit", name=name, spec=self.live[name])

    def delete(self, name: str, *, again: bool) -> None:
        orphan = again and self.chance.random() < 0.3
        self.add("delete", name=name, orphan=orphan)
        del self.live[name]
        self.paused.discard(name)
        if again:
            self.create(name)

    def pause(self, name: str) -> None:
        if name in self.paused:
            self.paused.discard(name)
        else:
            self.paused.add(name)
        self.add("pause", name=name, on=name in self.paused)

    def use(self) -> None:
        """A user does something to a model."""
        names = list(self.live)
        unused = [name for name in NAMES if name not in self.live]
        what = self.chance.random()
        if not names or (unused and what < 0.15):
            self.create(self.chance.choice(unused))
        elif what < 0.7:
            self.edit(self.chance.choice(names))
        elif what < 0.8:
            self.add("refresh", name=self.chance.choice(names))
        elif what < 0.88:
            self.pause(self.chance.choice(names))
        else:
            self.delete(self.chance.choice(names), again=self.chance.random() < 0.7)

    def meddle(self) -> None:
        """Somebody does something to what the operator made, or the cluster to a pod."""
        name = self.chance.choice(list(self.live) or NAMES[:1])
        what = self.chance.choice(("remove", "remove", "change", "change", "pod", "unready", "scale"))
        if what == "remove":
            self.add("remove child", name=name, kind=self.chance.choice(CHILDREN))
        elif what == "change":
            changes = ("image", "args", "port", "label", "annotation", "budget")
            self.add("change child", name=name, change=self.chance.choice(changes))
        elif what == "scale" and self.scaled.get(name, 0) < 1:
            # Who does so again and again is given way for a while, which is another promise.
            self.scaled[name] = 1
            self.add("change child", name=name, change="replicas")
        elif what == "unready":
            self.add("unready", name=name)
        else:
            self.add("remove pod", name=name)

    # --- what happens to the operator ---------------------------------------------------------------------------------

    def disturb(self, *, lone: bool) -> None:
        """A fault."""
        chance = self.chance
        kinds = {
            self._kill: 5,
            self._signals: 3,
            self._watches: 4,
            self._refusals: 6,
            self._silence: 4,
            self._clocks: 2,
            self._restarts: 8 if lone else 0,
        }
        chance.choices(list(kinds), list(kinds.values()))[0]()

    def _kill(self) -> None:
        chance = self.chance
        frees = chance.random() < 0.7
        if chance.random() < 0.35:
            self.add("kill each", writes=chance.randint(2, 5), moment=chance.choice(("before", "after", "after")))
        else:
            at, moment = chance.choice((1, 1, 2, 3, 4, 6)), chance.choice(("before", "after"))
            self.add("kill", at=at, moment=moment, frees=frees, down=chance.choice((0.0, 0.0, 0.5, 1.5)))

    def _signals(self) -> None:
        what = self.chance.choice(("stop", "stop", "long stop", "term"))
        if what == "term":
            self.add("term")
        else:
            self.add("stop", seconds=self.chance.choice((0.2, 0.6, 1.5)) if what == "stop" else 7.0)

    def _watches(self) -> None:
        what = self.chance.choice(("cut", "cut", "cut within", "stall", "gone", "gone"))
        self.add(f"{what} watches", **({"seconds": self.chance.choice((0.3, 1.0, 2.5))} if what == "stall" else {}))

    def _refusals(self) -> None:
        chance = self.chance
        status = chance.choice((409, 409, 410, 429, 429, 500, 500, 503, 504))
        writes = ("write", "status", "status")
        which = "list" if status == 410 else chance.choice(writes if status == 409 else ("any", "read", *writes))
        self.add("refuse", status=status, which=which, times=chance.choice((1, 1, 2, 3, 6)))

    def _silence(self) -> None:
        chance = self.chance
        what = chance.choice(("drop", "lose", "lose", "delay"))
        if what == "delay":
            self.add("delay", seconds=chance.choice((0.05, 0.2, 0.6)), times=chance.randint(3, 15))
        else:
            which = chance.choice(("any", "write", "write", "status"))
            self.add(what, which=which, times=chance.choice((1, 1, 2, 3)))

    def last_word(self) -> None:
        """What an operator says last meets a fault when all others are over."""
        chance = self.chance
        where = {"which": chance.choice(("status", "write")), "times": 1, "lasting": True}
        match chance.choice(("refuse", "refuse", "drop", "lose")):
            case "refuse":
                self.add("refuse", status=chance.choice((409, 409, 429, 500)), **where)
            case other:
                self.add(other, **where)

    def _clocks(self) -> None:
        if self.chance.random() < 0.25:
            self.add("sleep", seconds=60.0)
        else:
            hours = self.chance.choice((-87600.0, -24.0, -0.01, 0.01, 1.0, 24.0, 87600.0))
            self.add("clock", hours=hours)

    def _restarts(self) -> None:
        self.add("restart", program=self.chance.choice(("kube-apiserver", "etcd", "both")))


def make(seed: int) -> Plan:
    """The plan of a seed: always the same."""
    chance = random.Random(f"chaos {seed}")
    draft = _Draft(chance)
    lone = seed % LONE_EVERY == LONE_EVERY - 1
    # Every write in turn: this seed's is the next one's neighbour.
    first = {"at": seed % WRITES_IN_TURN + 1, "moment": ("before", "after")[seed // WRITES_IN_TURN % 2]}
    draft.steps.append(Step(0, "kill", {**first, "frees": True, "down": 0.0}))
    for name in NAMES[: chance.randint(1, 2)]:
        draft.create(name)
    sour = chance.random() < 0.2
    if sour:
        spec = {"model": {"file": chance.choice(BAD)}, "replicas": 1}
        draft.add("create", name=SOUR, spec=spec)
    for _ in range(chance.randint(12, 20)):
        what = chance.random()
        if what < 0.4:
            draft.use()
        elif what < 0.6:
            draft.meddle()
        else:
            draft.disturb(lone=lone)
    if lone and not any(step.action == "restart" for step in draft.steps):
        draft._restarts()
    for name in list(draft.live):
        if draft.live[name]["model"]["file"] in BAD:
            draft.live[name] = {**draft.live[name], "model": {**draft.live[name]["model"], "file": chance.choice(GOOD)}}
            draft.add("edit", name=name, spec=draft.live[name])
        if name in draft.paused:
            draft.pause(name)
    if chance.random() < 0.5:
        draft.last_word()
    finals = dict(draft.live)
    if sour:
        finals[SOUR] = spec
    return Plan(
        seed=seed,
        steps=tuple(draft.steps),
        finals=finals,
        replicas=2 if chance.random() < 0.2 else 1,
        hurried=seed % UNHURRIED_EVERY != UNHURRIED_EVERY - 1,
        lone=lone,
    )
