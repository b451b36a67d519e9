"""A small Hugging Face hub: what a reader of models sees of it."""

import hashlib
import json
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Hub:
    """One repository with its commits; large files are redirected to a storage, as the hub keeps them."""

    repository: str = "org/model"
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    url: str = ""
    """Where it answers."""
    storage: str = ""
    """URL before ``/SHA256`` of large files, on another host: clients take one to the same for the hub."""
    large_bytes: int = 1000
    token: str = ""
    """Where set, only its holder sees the repository."""
    renamed: str = ""
    """Former name of the repository, which redirects."""

    def commit(self, files: dict[str, bytes], ref: str = "main") -> str:
        """Set what a branch holds; returns the commit."""
        content = json.dumps([[name, hashlib.sha1(body).hexdigest()] for name, body in files.items()])
        commit = hashlib.sha1(f"{len(self.commits)}{content}".encode()).hexdigest()
        self.commits[commit] = files
        self.refs[ref] = commit
        return commit

    def answer(self, method: str, target: str, headers: dict[str, str]) -> Answer:
        """Answer a request; the names of ``headers`` are in lower case."""
        path = urlsplit(target).path
        if path.startswith("/storage/"):
            return self._stored(method, path.rpartition("/")[2], headers)
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            return _error(401, "RepoNotFound", "Invalid username or password.")
        if self.renamed and path.startswith(f"/{self.renamed}/"):
            return 307, {"Location": path.replace(self.renamed, self.repository, 1)}, b""
        if path.startswith(f"/api/models/{self.repository}/revision/"):
            return self._listed(path.rpartition("/")[2])
        if path.startswith(f"/{self.repository}/resolve/"):
            revision, _, name = path.partition("/resolve/")[2].partition("/")
            return self._resolved(method, unquote(revision), unquote(name), headers)
        return _error(404, "RepoNotFound", "Repository not found")

    def _listed(self, revision: str) -> Answer:
        commit = self._commit(unquote(revision))
        if commit is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        content = {
            "_id": "1",
            "id": self.repository,
            "modelId": self.repository,
            "sha": commit,
            "private": False,
            "siblings": [{"rfilename": name} for name in self.commits[commit]],
        }
        return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()

    def _resolved(self, method: str, revision: str, name: str, headers: dict[str, str]) -> Answer:
        commit = self._commit(revision)
        if commit is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        body = self.commits[commit].get(name)
        if body is None:
            return _error(404, "EntryNotFound", "Entry not found")
        told = {"X-Repo-Commit": commit}
        if len(body) < self.large_bytes:
            blob = hashlib.sha1(f"blob {len(body)}\0".encode() + body).hexdigest()
            return _sent(method, body, {**told, "ETag": f'"{blob}"'}, headers)
        sha256 = hashlib.sha256(body).hexdigest()
        told |= {"X-Linked-Size": str(len(body)), "X-Linked-Etag": f'"{sha256}"'}
        return 302, {**told, "Location": f"{self.storage}/{sha256}"}, b""

    def _stored(self, method: str, sha256: str, headers: dict[str, str]) -> Answer:
        bodies = (body for files in self.commits.values() for body in files.values())
        body = next((each for each in bodies if hashlib.sha256(each).hexdigest() == sha256), None)
        return (404, {}, b"") if body is None else _sent(method, body, {}, headers)

    def _commit(self, revision: str) -> str | None:
        commit = self.refs.get(revision, revision)
        return commit if commit in self.commits else None


def _error(status: int, code: str, message: str) -> Answer:
    return status, {"X-Error-Code": code, "X-Error-Message": message}, b""


def _sent(method: str, body: bytes, headers: dict[str, str], request: dict[str, str]) -> Answer:
    headers = {**headers, "Accept-Ranges": "bytes"}
    if method == "HEAD":
        return 200, {**headers, "Content-Length": str(len(body))}, b""
    first, _, last = request.get("range", "").removeprefix("bytes=").partition("-")
    if not first:
        return 200, headers, body
    begin, end = int(first), min(int(last) + 1 if last else len(body), len(body))
    if begin >= len(body):
        return 416, {"Content-Range": f"bytes */{len(body)}"}, b""
    return 206, {**headers, "Content-Range": f"bytes {begin}-{end - 1}/{len(body)}"}, body[begin:end]
