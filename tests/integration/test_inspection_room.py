"""A namespace that has no room for the pod that inspects: told as that, and cured from the spec at once."""

import asyncio

from tests.integration.test_inspection_pod import small_quota
from tests.integration.working import at_work, conditions, told, until


async def pods(desk):
    return await asyncio.to_thread(desk.cluster.list, "pods", desk.namespace)


async def test_a_quota_is_told_as_a_quota_and_the_spec_that_fits_it_is_tried_at_once(desk):
    await asyncio.to_thread(small_quota, desk, limits_memory="1Gi")
    async with at_work(await desk.operator(inspectorImage="registry.example/onnx-operator:1")) as operator:
        made = await desk.write(model={"uri": "pvc://models/m.onnx"})
        found = await told(desk, "ModelValid", "QuotaExceeded")
        assert found["status"] == "Unknown", "nothing is known of the model"
        assert "limits.memory from 512Mi to 1536Mi" in found["message"]
        assert found["message"].endswith("Will retry.")
        seen = await conditions(desk)
        assert (seen["Ready"]["status"], seen["Ready"]["reason"]) == ("False", "QuotaExceeded")
        assert "Stalled" not in seen
        assert not await pods(desk)

        # It has lacked room for hours.
        entry = operator.reconciler._inspections._entries[made["metadata"]["uid"]]
        entry.attempts, entry.not_before = 20, asyncio.get_running_loop().time() + 600
        await desk.write(model={"uri": "pvc://models/m.onnx"}, resources={"limits": {"memory": "600Mi"}})
        (pod,) = await until(lambda: pods(desk), 10)
        assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] == "600Mi"
