"""What a request says, in a form that tests compare."""

from typing import Any

from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.openinference import Codec


def read(codec: Codec, body: bytes, header_length: bytes | None = None) -> Any:
    """The feed and the outputs wanted, or the refusal."""
    try:
        inference, form = codec.read(body, header_length)
    except RequestError as error:
        return error.status, error.message
    feed = {name: (value.dtype.str, value.shape, value.tolist()) for name, value in inference.feed.items()}
    return repr(feed), form.outputs, form.binary, form.id
