"""Answers of the API server, believed only where they are to what was asked."""

import logging
import re

from pydantic_core import from_json

from onnx_operator.controller.cluster.kinds import Kind, Object
from onnx_operator.controller.cluster.messages import steady
from onnx_operator.controller.cluster.naming import MAX_SUBDOMAIN_LENGTH, is_namespace
from onnx_operator.controller.cluster.nesting import parsed, roughly

logger = logging.getLogger(__name__)


_FORBIDDEN = re.compile(r'[\w./-]{1,316}(?: "[^"]*")? is forbidden: (?!User ")')
"""How the API server begins what its own admission says, and where others' words follow; not its authorization."""
_WEBHOOK = re.compile(r"admission webhook|failed calling webhook")
_POLICY = re.compile(r"[Pp]olicy '[^']{1,253}' (?:with binding '[^']{1,253}' )?denied request: ")


class ApiError(Exception):
    """The API server refused a call.

    ``status`` is the HTTP code, ``reason`` the machine-readable word of the API's Status object, where it sent one.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def invalid(self) -> bool:
        """Whether the object itself is at fault, so that sending it again cannot help.

        Server-side apply answers 500 to a field that the schema does not know
        (https://github.com/kubernetes/kubernetes/issues/125057).
        """
        return not self.by_admission and (
            self.status in (400, 422) or "failed to create typed patch object" in self.message
        )

    @property
    def by_admission(self) -> bool:
        """Whether admission refused: a webhook (or it could not be asked), a policy, a quota. It may change its mind.

        A policy chooses the status of its denials; without a choice it is the 422 of objects that are at fault
        (https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/).
        """
        begins, found = _FORBIDDEN.match(self.message), (_WEBHOOK, _POLICY)
        return bool(begins) or any(pattern.search(self.message) for pattern in found)

    @property
    def refused(self) -> bool:
        """Whether the API server will not have the object, for whatever reason."""
        return self.invalid or self.by_admission or self.status == 403


API_FAILURES = (ApiError, OSError)
"""How a call fails: refused, or without an answer that counts (a timeout is an OSError)."""


def failure(error: Exception) -> str:
    """What went wrong with a call, for people."""
    if isinstance(error, ApiError):
        word = f" ({error.reason})" if error.reason else ""
        return f"the API server answers {error.status}{word}: {error.message}"
    return str(error) or "the API server does not answer in time"


class UnexpectedAnswerError(ConnectionError):
    """An answer that is not to what was asked, or is none of an API server's; to callers as good as no answer."""


class TooLongError(UnexpectedAnswerError):
    """The answer takes more bytes than are read."""


class UnreadableError(UnexpectedAnswerError):
    """The answer is no JSON that can be read: a number of thousands of digits, half a character."""


def api_error(status: int, reason: str, body: str) -> ApiError:
    """What a refusal tells: the words of its Status object, else of its body, the same for the same trouble."""
    try:
        told = from_json(body)
    except ValueError:
        told = None
    fields: Object = told if isinstance(told, dict) else {}
    word, message = fields.get("reason"), fields.get("message") or body or reason or f"HTTP {status}"
    return ApiError(status, word if isinstance(word, str) else "", steady(str(message)[:2000]))


async def parsed_object(body: bytearray) -> Object:
    """The JSON object of an answer. Raises :class:`UnexpectedAnswerError` where it is none."""
    try:
        found = await parsed(body)
    except ValueError as error:
        raise UnreadableError(f"the API server's answer is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UnexpectedAnswerError("the API server's answer is not a JSON object")
    return found


def _is_map(value: object) -> bool:
    return value is None or isinstance(value, dict)


def as_asked(found: Object, kind: Kind, namespace: str | None, name: str | None = None) -> Object:
    """The object, known to be of this kind and (where given) namespace and name.

    Raises:
        UnexpectedAnswerError: it is another one, and nothing in it may be believed.
    """
    metadata = found.get("metadata")
    if not isinstance(metadata, dict):
        raise UnexpectedAnswerError(f"the API server's answer is not a {kind.kind}: it has no metadata")
    if namespace is None and is_namespace(metadata.get("namespace")):
        namespace = metadata["namespace"]
    asked = (kind.api_version, kind.kind, namespace, name or metadata.get("name"))
    got = (found.get("apiVersion"), found.get("kind"), metadata.get("namespace"), metadata.get("name"))
    if got != asked:
        raise UnexpectedAnswerError(f"the API server was asked for {asked} and answers with {str(got)[:500]}")
    uid, references = metadata.get("uid"), metadata.get("ownerReferences")
    if not (isinstance(got[3], str) and isinstance(uid, str) and 0 < len(uid) <= 253):
        raise UnexpectedAnswerError(f"the API server's answer has no name or no UID: {str(got)[:500]}")
    if not (_is_map(metadata.get("labels")) and _is_map(metadata.get("annotations"))) or not (
        references is None or (isinstance(references, list) and all(isinstance(r, dict) for r in references))
    ):
        raise UnexpectedAnswerError(f"the API server's answer has metadata of a wrong form: {str(got)[:500]}")
    return found


async def read_event(line: bytes, kind: Kind, namespace: str | None) -> tuple[str, Object] | None:
    """An event's type and object; None for an empty line. Raises what an ERROR tells."""
    if not line.strip():
        return None
    readable = True
    try:
        event = await parsed(line)
    except ValueError:
        readable = False
        try:
            event = await roughly(line)
        except ValueError as error:
            raise UnreadableError(f"an event of the API server's is no JSON: {error}") from None
    word, found = (event.get("type"), event.get("object")) if isinstance(event, dict) else (None, None)
    if not isinstance(found, dict):
        raise UnexpectedAnswerError("the API server's watch brings what is no event")
    if word == "ERROR":
        code, reason = found.get("code"), found.get("reason")
        raise ApiError(
            code if type(code) is int else 500,
            reason if isinstance(reason, str) else "",
            f"the watch ended: {found.get('message')}"[:2000],
        )
    if word == "BOOKMARK":
        return "BOOKMARK", {"metadata": {"resourceVersion": version_of(found)}}
    if word not in ("ADDED", "MODIFIED", "DELETED"):
        raise UnexpectedAnswerError(f"the API server's watch brings an event of type {str(word)[:80]!r}")
    shown = as_asked(found, kind, namespace)
    if not readable and word != "DELETED":
        told = {"kind": kind.kind, "namespace": shown["metadata"]["namespace"], "objects": [shown["metadata"]["name"]]}
        logger.warning("an object is too odd to be read: it is passed over", extra=told)
        return "UNREADABLE", shown
    return word, shown


def items_of(body: Object, kind: Kind, namespace: str | None) -> list[Object]:
    """The objects of a list, each with apiVersion and kind. Raises as :func:`as_asked` does."""
    items = body.get("items") or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UnexpectedAnswerError(f"the API server's answer is not a list of {kind.plural}")
    # Objects in a list of built-in kinds leave both out.
    typed = ({"apiVersion": kind.api_version, "kind": kind.kind} | item for item in items)
    return [as_asked(item, kind, namespace) for item in typed]


def following_page(body: Object) -> str:
    """The token by which the rest of a list is asked for; empty after the last page."""
    metadata = body.get("metadata")
    token = metadata.get("continue") if isinstance(metadata, dict) else None
    return token if isinstance(token, str) else ""


def version_of(body: Object) -> str:
    """The resourceVersion of a list or object; empty where there is none that can be one."""
    metadata = body.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) and len(version) <= MAX_SUBDOMAIN_LENGTH else ""
