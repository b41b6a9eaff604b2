"""A local server with the endpoints of the Hugging Face Hub that publishing calls; it is not the hub."""

import base64
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKENS = {"hf_writes": True, "hf_reads": False}  # token → whether it may write to the repositories of `me`
OWNER = "me"
LICENSES = ("apache-2.0", "mit")


class StandIn(ThreadingHTTPServer):
    """`repos`: name → {"private": …, "branches": {branch: {path: content}}, "commits": number of them}.

    `fails`: beginning of a path → status of the answer; 0 closes the connection without an answer, and
    -N also sends the signal N to this process.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.fails: dict[str, int] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, name: str, *, private: bool) -> None:
        self.repos[name] = {"private": private, "branches": {"main": {}}, "commits": 0}


@contextmanager
def hub_stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str = "", **content: object) -> None:
        self.status, self.message, self.code, self.content = status, message, code, content


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        body = self._read_body()
        path = self.path.partition("?")[0]
        self.server.calls.append(f"{self.command} {path}")
        status: int = next((each for begin, each in self.server.fails.items() if path.startswith(begin)), 200)
        if status <= 0:
            if status:
                os.kill(os.getpid(), -status)
                time.sleep(5)  # until the client has noticed
            self.close_connection = True
            return
        try:
            if status != 200:
                raise _Refused(status, f"forced {status}")
            self._send(200, self._route(path, body), {})
        except _Refused as refused:
            headers = {"X-Error-Message": refused.message, "X-Error-Code": refused.code}
            self._send(refused.status, {"error": refused.message, **refused.content}, headers)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, status: int, content: object, headers: dict[str, str]) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def _route(self, path: str, body: bytes) -> object:
        if path.startswith("/objects/"):  # the storage knows no tokens
            return self._store(path.removeprefix("/objects/"), body)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in TOKENS:
            raise _Refused(401, "Invalid credentials in Authorization header")
        if path == "/api/repos/create":
            return self._create(json.loads(body), token)
        if path == "/api/validate-yaml":
            return _validate(json.loads(body)["content"])
        if path.endswith(".git/info/lfs/objects/batch"):
            self._writable(path.removesuffix(".git/info/lfs/objects/batch")[1:], token)
            return self._batch(json.loads(body))
        _, owner, name, *rest = path.removeprefix("/api/").split("/")
        repo = f"{owner}/{name}"
        if repo not in self.server.repos:
            raise _Refused(404, "Repository not found", "RepoNotFound")
        if not rest:
            return {"id": repo, "private": self.server.repos[repo]["private"], "siblings": []}
        self._writable(repo, token)
        return self._change(repo, *rest, body=body)

    def _writable(self, repo: str, token: str) -> None:
        if not TOKENS[token] or not repo.startswith(f"{OWNER}/"):
            raise _Refused(403, "Forbidden: you must have write access to this repository")

    def _create(self, asked: dict[str, Any], token: str) -> object:
        repo = f"{asked['organization']}/{asked['name']}"
        self._writable(repo, token)
        if repo in self.server.repos:
            raise _Refused(409, "You already created this model repo", url=f"{self.server.url}/{repo}")
        self.server.add(repo, private=asked.get("visibility") == "private")
        return {"url": f"{self.server.url}/{repo}", "name": repo}

    def _change(self, repo: str, action: str, branch: str, body: bytes) -> object:
        branches = self.server.repos[repo]["branches"]
        if action == "branch":
            if branch in branches:
                raise _Refused(409, "Reference already exists")
            branches[branch] = dict(branches["main"])
            return {}
        if branch not in branches:
            raise _Refused(404, "Invalid rev id", "RevisionNotFound")
        if action == "preupload":
            return {"files": [_mode(each["path"]) for each in json.loads(body)["files"]]}
        assert action == "commit"
        files: dict[str, bytes] = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        branches[branch] |= files
        self.server.repos[repo]["commits"] += 1
        oid = hashlib.sha1(body).hexdigest()
        return {"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/{repo}/commit/{oid}"}

    def _batch(self, asked: dict[str, Any]) -> object:
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.server.url}/objects/{each['oid']}"}}}
            for each in asked["objects"]
        ]
        return {"transfer": "basic", "objects": objects}

    def _store(self, oid: str, content: bytes) -> object:
        assert hashlib.sha256(content).hexdigest() == oid
        self.server.objects[oid] = content
        return {}


def _mode(path: str) -> dict[str, object]:
    mode = "lfs" if path.endswith(".safetensors") else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False}


def _validate(card: str) -> object:
    matter = yaml.safe_load(card.split("---\n")[1])
    if "license" in matter and matter["license"] not in LICENSES:
        raise _Refused(400, "Bad request", errors=[{"message": '"license" must be one of [apache-2.0, mit]'}])
    return {"errors": [], "warnings": []}
