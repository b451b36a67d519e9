"""What wakes a model: every change of what is known only puts keys on the queue."""

from onnx_operator.controller.cluster.keys import ModelKey
from onnx_operator.controller.cluster.kinds import CONFIG_MAP, ONNX_MODEL
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.cluster.store import Change, Store
from onnx_operator.controller.cluster.wakes import model_key, woken

CHILD_DELAY_SECONDS = 0.1
"""Children change in bursts (a rollout touches a pod several times within moments): one look serves them all."""


def wake(queue: KeyedQueue[ModelKey], store: Store) -> None:
    """From now on have every change in the store put the keys of the models on the queue that it may concern."""

    def changed(change: Change) -> None:
        if change.kind == ONNX_MODEL:
            if key := model_key(change.namespace, change.name):
                queue.add(key)
            return
        if change.kind == CONFIG_MAP:
            models: list[object] = [*store.group_names(ONNX_MODEL, change.namespace, change.name)]
            keys = [key for name in models if (key := model_key(change.namespace, name))]
        else:
            before = [key for name in change.groups if (key := model_key(change.namespace, name))]
            keys = list(dict.fromkeys([*before, *woken(change.item)]))
        for key in keys:
            # Anybody's objects may carry any name.
            if store.has(ONNX_MODEL, *key) or not store.knows(ONNX_MODEL, key[0]):
                queue.hint(key, CHILD_DELAY_SECONDS)

    store.changed = changed
