"""kserve's client of its V1 protocol: python kserve_tables.py URL ROWS; prints its predictions."""

import asyncio
import json
import sys

from kserve import InferenceRESTClient, RESTConfig


async def main() -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    answer = await client.infer(sys.argv[1], {"instances": json.loads(sys.argv[2])}, model_name="m")
    print(json.dumps(answer["predictions"]))


asyncio.run(main())
