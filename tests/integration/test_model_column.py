"""The MODEL column of ``kubectl get onnx``: what people take for the model that answers them."""

from tests.integration.working import at_work, conditions, serve, status, told


def columns(desk):
    head, row = desk.kubectl("get", "onnx", "m").splitlines()
    begin = {name: head.index(name) for name in head.split()}
    return {name: row[at:].split(" ", 1)[0] for name, at in begin.items()}


async def test_a_refused_update_leaves_the_model_that_serves_in_its_column(desk):
    async with at_work(await desk.operator()):
        await desk.write(model={"version": "7"})
        await told(desk, "ModelValid", "Inspected")
        assert columns(desk)["MODEL"] == "7", "what is wanted, while nothing serves"
        await serve(desk)
        await desk.write(model={"uri": f"{desk.url}/m.onnx", "version": "8", "sha256": "0" * 64})
        await told(desk, "ModelValid", "DigestMismatch")
        assert (await conditions(desk))["Available"]["status"] == "True"
        assert (columns(desk)["MODEL"], columns(desk)["REASON"]) == ("7", "DigestMismatch")
        assert (await status(desk))["serving"]["version"] == "7"
