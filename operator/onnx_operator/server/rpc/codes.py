"""Which gRPC status tells of which fault."""

import grpc

from onnx_operator.server.errors import RequestError

MAX_DETAIL = 1000
"""Characters of a message that are sent: it travels as a header, which clients limit to 8 KiB."""

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def code_of(error: RequestError) -> grpc.StatusCode:
    """The gRPC code of an error; https://grpc.io/docs/guides/status-codes/."""
    return _CODES.get(error.status, grpc.StatusCode.INTERNAL)


def detail_of(error: RequestError) -> str:
    """The error's message, of a length that every client takes."""
    message = error.message
    return message if len(message) <= MAX_DETAIL else message[:MAX_DETAIL] + "…"
