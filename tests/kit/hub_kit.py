"""The Hub's HTTP interface, as far as an upload speaks it, on this machine: it keeps what it is sent."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "hf_aB3dE5gH7jK9mN1pQ3sT5vW7yZ"


@dataclass
class Fault:
    """An answer in place of the right one, to requests whose method and path match; ``after`` so many were answered,
    and ``times`` times (for ever by default)."""

    pattern: str
    status: int
    body: str = '{"error": "on purpose"}'
    headers: dict[str, str] = field(default_factory=dict)
    after: int = 0
    times: int = 10**9


@dataclass
class Repo:
    private: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: list[str] = field(default_factory=list)


class StandIn:
    """``repos`` by name, ``blobs`` by their SHA-256, ``asked`` are "METHOD path" of all requests."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.faults: list[Fault] = []
        self.logged_in: set[str | None] = set()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Transfer-Encoding") == "chunked":
                    body = b"".join(_chunks(self.rfile))
                status, answer, headers = stand_in.answer(self.command, self.path, body, self.headers)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(data)

            do_POST = do_PUT = do_HEAD = do_GET

            def log_message(self, *_: object) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def save(self, repo: str, folder: Path, branch: str = "main") -> Path:
        """What is in a repository, as a folder."""
        for name, data in self.repos[repo].branches[branch].items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder

    def answer(self, method: str, path: str, body: bytes, headers: Any) -> tuple[int, Any, dict[str, str]]:
        path = path.partition("?")[0]
        line = f"{method} {path}"
        self.asked.append(line)
        for fault in self.faults:
            if re.search(fault.pattern, line) and fault.times:
                if fault.after:
                    fault.after -= 1
                else:
                    fault.times -= 1
                    return fault.status, fault.body.encode(), fault.headers
        if path.startswith("/lfs/"):
            self.blobs[path.removeprefix("/lfs/")] = body
            return 200, {}, {}
        self.logged_in.add(headers.get("Authorization"))
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid username or password."}, {}
        if path == "/api/validate-yaml":
            return 200, {"warnings": [], "errors": []}, {}
        asked = json.loads(body) if body.startswith(b"{") and b"\n" not in body else {}
        if path == "/api/repos/create":
            name = f"{asked['organization']}/{asked['name']}"
            there = name in self.repos
            self.repos.setdefault(name, Repo(asked.get("visibility") == "private" or bool(asked.get("private"))))
            return 409 if there else 200, {"url": f"{self.url}/datasets/{name}"}, {}
        return self._of_repo(method, path, asked, body)

    def _of_repo(self, method: str, path: str, asked: Any, body: bytes) -> tuple[int, Any, dict[str, str]]:
        match = re.fullmatch(r"/(?:api/)?datasets/([^/]+/[^/.]+)(?:\.git)?(?:/(\w+)/?(.*))?", path)
        assert match is not None, path
        name, what, rest = match.groups()
        if name not in self.repos:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        repo = self.repos[name]
        if what == "branch":
            there = rest in repo.branches
            repo.branches.setdefault(rest, dict(repo.branches["main"]))
            return (409 if there else 200), {"error": "it is there"} if there else {}, {}
        if what == "info":
            return 200, {"objects": [self._action(entry) for entry in asked["objects"]]}, {}
        branch = rest or "main"
        if branch not in repo.branches:
            return 404, {"error": "no such branch"}, {"X-Error-Code": "RevisionNotFound"}
        content = repo.branches[branch]
        if what in (None, "revision"):
            files = [{"rfilename": name} for name in content]
            return 200, {"id": name, "sha": "a" * 40, "private": repo.private, "siblings": files}, {}
        if what == "tree":
            files = [{"type": "file", "path": n, "size": len(d), "oid": _git(d)} for n, d in content.items()]
            return 200, files, {}
        if what == "preupload":
            return 200, {"files": [self._mode(entry, content) for entry in asked["files"]]}, {}
        assert (method, what) == ("POST", "commit")
        return self._commit(repo, name, content, [json.loads(line) for line in body.splitlines()])

    def _action(self, entry: dict[str, Any]) -> dict[str, Any]:
        upload = {"upload": {"href": f"{self.url}/lfs/{entry['oid']}"}}
        return {**entry, **({} if entry["oid"] in self.blobs else {"actions": upload})}

    def _mode(self, entry: dict[str, Any], content: dict[str, bytes]) -> dict[str, Any]:
        large = entry["path"].endswith((".arrow", ".png", ".jpeg"))
        old = content.get(entry["path"])
        oid = None if old is None else hashlib.sha256(old).hexdigest() if large else _git(old)
        return {"path": entry["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}

    def _commit(
        self, repo: Repo, name: str, content: dict[str, bytes], lines: list[dict[str, Any]]
    ) -> tuple[int, Any, dict[str, str]]:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                repo.commits.append(value["summary"])
            elif line["key"] == "file":
                content[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content[value["path"]] = self.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del content[value["path"]]
        return (
            200,
            {"commitUrl": f"{self.url}/datasets/{name}/commit/{'b' * 40}", "commitOid": "b" * 40, "success": True},
            {},
        )


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _chunks(file: Any) -> Iterator[bytes]:
    while size := int(file.readline(), 16):
        yield file.read(size)
        file.readline()
    file.readline()


@contextlib.contextmanager
def hub() -> Iterator[StandIn]:
    stand_in = StandIn()
    try:
        yield stand_in
    finally:
        stand_in.stop()
