"""The request and the response that a script decorated with ``@rawhttp`` works with.

Azure ML hands it a Flask request and takes a Flask response; these have the attributes that scripts use of them.
Where the script's requirements bring Flask and Azure's own packages, those are used instead (see ``entry``).
"""

import email.parser
import email.policy
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar
from urllib.parse import parse_qsl, unquote

from onnx_operator.server.script.plain import to_json

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])

_raw_functions: list[Any] = []


def rawhttp(function: Function) -> Function:
    """Mark ``run``: it takes the whole request instead of its body as text."""
    _raw_functions.append(function)
    return function


def raw_http_requested() -> bool:
    """Whether anything was marked by :func:`rawhttp`."""
    return bool(_raw_functions)


class MultiValues(Mapping[str, T], Generic[T]):
    """Names with one value or several; ``[]`` gives the first, ``getlist`` all."""

    def __init__(self, pairs: Sequence[tuple[str, T]], *, fold_case: bool = False) -> None:
        self._fold = fold_case
        self._names: dict[str, str] = {}
        self._values: dict[str, list[T]] = {}
        for name, value in pairs:
            key = self._key(name)
            self._names.setdefault(key, name)
            self._values.setdefault(key, []).append(value)

    def _key(self, name: object) -> str:
        return str(name).lower() if self._fold else str(name)

    def __getitem__(self, name: str) -> T:
        return self._values[self._key(name)][0]

    def __contains__(self, name: object) -> bool:
        return self._key(name) in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._names.values())

    def __len__(self) -> int:
        return len(self._values)

    def get(self, name: str, default: Any = None, type: Callable[[T], Any] | None = None) -> Any:  # noqa: A002
        """The first value, through ``type`` where that accepts it; else ``default``."""
        if name not in self:
            return default
        if type is None:
            return self[name]
        try:
            return type(self[name])
        except (ValueError, TypeError):
            return default

    def getlist(self, name: str) -> list[T]:
        """Every value of a name; empty where there is none."""
        return list(self._values.get(self._key(name), []))

    def to_dict(self, flat: bool = True) -> dict[str, Any]:
        """A plain dict of first values, or of lists with ``flat=False``."""
        return {name: self[name] if flat else self.getlist(name) for name in self}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.to_dict(flat=False)!r})"


class UploadedFile:
    """A file of a form: ``filename``, ``content_type``, ``read()``, ``stream``, ``save(path)``."""

    def __init__(self, name: str, filename: str, content_type: str, content: bytes) -> None:
        self.name, self.filename = name, filename
        self.content_type = self.mimetype = content_type
        self.content_length = len(content)
        self.stream: BinaryIO = io.BytesIO(content)

    def save(self, destination: str | Path | BinaryIO) -> None:
        """Write the content to a path or to an open file."""
        content = self.stream.read()
        if isinstance(destination, str | Path):
            Path(destination).write_bytes(content)
        else:
            destination.write(content)

    def __getattr__(self, name: str) -> Any:
        # read, seek, tell, readlines …: a file of a form is used as the file that it is.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.stream, name)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.stream)


class BodyError(Exception):
    """The body is not what the script asked to read it as; ``code`` is the status that this would deserve."""

    def __init__(self, message: str, code: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.description = message


class AMLRequest:
    """A request: ``method``, ``path``, ``args``, ``headers``, ``data``, ``json``, ``form``, ``files`` and more."""

    def __init__(
        self, method: str = "GET", target: str = "/score", headers: Sequence[tuple[str, str]] = (), body: bytes = b""
    ) -> None:
        path, _, query = target.partition("?")
        self.method = method
        self.path = unquote(path)
        self.query_string = query.encode("latin-1", "replace")
        self.full_path = f"{self.path}?{query}"
        self.headers: MultiValues[str] = MultiValues(headers, fold_case=True)
        self.args: MultiValues[str] = MultiValues(parse_qsl(query, keep_blank_values=True))
        self.host = self.headers.get("Host", "")
        self.scheme = "http"
        self.base_url = f"{self.scheme}://{self.host}{path}"
        self.url = f"{self.base_url}?{query}" if query else self.base_url
        self.host_url = self.url_root = f"{self.scheme}://{self.host}/"
        self.content_type: str = self.headers.get("Content-Type", "")
        self.mimetype: str = self.content_type.partition(";")[0].strip().lower()
        self.content_length = len(body)
        self.environ = {"REQUEST_METHOD": method, "PATH_INFO": self.path, "QUERY_STRING": query}
        self._body = body
        self._form: tuple[MultiValues[str], MultiValues[UploadedFile]] | None = None
        self.stream = io.BytesIO(body)

    @property
    def data(self) -> bytes:
        """The body; empty for a form, as Flask has it."""
        return b"" if self._is_form else self._body

    def get_data(self, cache: bool = True, as_text: bool = False, parse_form_data: bool = False) -> Any:
        """The body, as bytes or as text."""
        body = self.data if parse_form_data else self._body
        return body.decode("utf-8", "replace") if as_text else body

    @property
    def is_json(self) -> bool:
        """Whether the content type says JSON."""
        return self.mimetype == "application/json" or (
            self.mimetype.startswith("application/") and self.mimetype.endswith("+json")
        )

    @property
    def json(self) -> Any:
        """The body read as JSON."""
        return self.get_json()

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The body read as JSON. Raises :class:`BodyError`: 415 without its content type, 400 otherwise."""
        try:
            if not (force or self.is_json):
                raise BodyError("expected Content-Type: application/json", 415)
            try:
                return json.loads(self._body)
            except ValueError as error:
                raise BodyError(f"the body is not JSON: {error}") from None
        except BodyError:
            if silent:
                return None
            raise

    @property
    def form(self) -> MultiValues[str]:
        """The text fields of a form."""
        return self._parse_form()[0]

    @property
    def files(self) -> MultiValues[UploadedFile]:
        """The files of a form."""
        return self._parse_form()[1]

    @property
    def values(self) -> MultiValues[str]:
        """The fields of the query and of a form together."""
        pairs = [
            (name, value) for source in (self.args, self.form) for name in source for value in source.getlist(name)
        ]
        return MultiValues(pairs)

    @property
    def cookies(self) -> dict[str, str]:
        """Cookies by name."""
        try:
            return {name: morsel.value for name, morsel in SimpleCookie(self.headers.get("Cookie", "")).items()}
        except CookieError:
            return {}

    @property
    def _is_form(self) -> bool:
        return self.mimetype in ("multipart/form-data", "application/x-www-form-urlencoded")

    def _parse_form(self) -> tuple[MultiValues[str], MultiValues[UploadedFile]]:
        if self._form is None:
            fields: list[tuple[str, str]] = []
            files: list[tuple[str, UploadedFile]] = []
            if self.mimetype == "multipart/form-data":
                _parse_multipart(self.content_type, self._body, fields, files)
            elif self.mimetype == "application/x-www-form-urlencoded":
                fields = parse_qsl(self._body.decode("utf-8", "replace"), keep_blank_values=True)
            self._form = MultiValues(fields), MultiValues(files)
        return self._form

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url!r} [{self.method}]>"


def _parse_multipart(
    content_type: str, body: bytes, fields: list[tuple[str, str]], files: list[tuple[str, UploadedFile]]
) -> None:
    opening = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode("latin-1", "replace")
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(opening + body)
    if not message.is_multipart():
        raise BodyError("the body is not a form: its boundary is missing")
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if not isinstance(name, str) or not isinstance(content, bytes):
            continue
        filename = part.get_filename()
        if filename is None:
            fields.append((name, content.decode("utf-8", "replace")))
        else:
            kind = part.get_content_type() if "content-type" in part else ""
            files.append((name, UploadedFile(name, filename, kind, content)))


def _bytes(message: Any) -> bytes:
    """A body, in one piece or in several, as Flask takes it. Raises TypeError."""
    if isinstance(message, str):
        return message.encode()
    if isinstance(message, bytes | bytearray | memoryview):
        return bytes(message)
    return b"".join(_bytes(each) for each in message)


class AMLResponse:
    """A response: ``message`` is its body, as JSON with ``json_str``."""

    def __init__(
        self,
        message: Any,
        status_code: int,
        response_headers: Mapping[str, str] | None = None,
        json_str: bool = False,
        run_function_failed: bool = False,
    ) -> None:
        self.status_code = status_code
        self.run_function_failed = run_function_failed
        self.headers: dict[str, str] = dict(response_headers or {})
        as_json = json_str or message is None
        if as_json:
            message = to_json({} if message is None else message)
        self._body = _bytes(message)
        if as_json:
            self._default_type("application/json")
        else:
            self._default_type("text/html; charset=utf-8")

    def _default_type(self, value: str) -> None:
        if not any(name.lower() == "content-type" for name in self.headers):
            self.headers["Content-Type"] = value

    @property
    def data(self) -> bytes:
        """The body."""
        return self._body

    def get_data(self, as_text: bool = False) -> Any:
        """The body, as bytes or as text."""
        return self._body.decode() if as_text else self._body
