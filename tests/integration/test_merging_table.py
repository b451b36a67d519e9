"""How pod templates merge is what the API server itself says of its kinds."""

import json

from tests.tools.merging import TABLE, text


def test_the_table_of_merging_is_that_of_a_real_api_server(apiserver):
    told = json.loads(apiserver.kubectl("get", "--raw=/openapi/v2"))
    assert TABLE.read_text() == text(told["definitions"]), "python -m tests.tools.merging FILE makes it anew"
