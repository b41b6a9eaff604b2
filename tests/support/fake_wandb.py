"""The part of W&B's server that its client needs to start, resume and sync one run. `rows` are the received rows."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    def __init__(self, url: str) -> None:
        self.url = url
        self.rows: list[dict[str, Any]] = []

    def steps(self, key: str) -> list[int]:
        """The steps for which the client sent `key`."""
        return [row["trainer/global_step"] for row in self.rows if key in row]

    def stream(self, files: dict[str, Any]) -> None:
        history = files.get("wandb-history.jsonl")
        if history is not None:
            assert history["offset"] <= len(self.rows), "a gap"
            self.rows[history["offset"] :] = [json.loads(line) for line in history["content"]]

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        name = re.search(r"(?:query|mutation)\s+(\w+)", query)
        match name and name[1]:
            case "UpsertBucket":
                return {"upsertBucket": {"bucket": self._bucket(), "inserted": not self.rows}}
            case "RunResumeStatus":
                return {"model": _project() | {"bucket": self._bucket() if self.rows else None}}
            case "Viewer" | "ViewerInfo":
                return {"viewer": {"id": "v", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
            case "ServerInfo":
                return {"serverInfo": {"cliVersionInfo": {"max_cli_version": "9.9.9"}, "latestLocalVersionInfo": None}}
            case "CreateRunFiles":
                return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": []}}
        return {}

    def _bucket(self) -> dict[str, Any]:
        last = json.dumps(self.rows[-1] if self.rows else {})
        latest = json.dumps({name: value for row in self.rows for name, value in row.items()})
        nothing = dict.fromkeys(("description", "sweepName", "sweep", "git", "notes", "group", "jobType"))
        counts = {"historyLineCount": len(self.rows), "eventsLineCount": 0, "logLineCount": 0}
        tails = {"historyTail": json.dumps([last] if self.rows else []), "eventsTail": "[]", "summaryMetrics": latest}
        names = {"id": "b", "name": "abcd1234", "displayName": "run", "state": "running", "tags": [], "config": "{}"}
        return {**nothing, **counts, **tails, **names, "wandbConfig": '{"t": 1}', "project": _project()}


def _project() -> dict[str, Any]:
    return {"id": "p", "name": "resnext", "entity": {"id": "e", "name": "me"}}


@contextmanager
def serving() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: object) -> None:
            """Nothing."""

        def do_GET(self) -> None:
            self._send({})

        def do_PUT(self) -> None:
            self._body()
            self._send({})

        def do_POST(self) -> None:
            body = self._body()
            if self.path.endswith("file_stream"):
                server.stream(json.loads(body).get("files") or {})
                self._send({"exitcode": None, "limits": {}})
            elif self.path.endswith("graphql"):
                self._send({"data": server.answer(**_request(json.loads(body)))})
            else:
                self._send({})

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _send(self, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = Server(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield server
        http.shutdown()
        thread.join()


def _request(body: dict[str, Any]) -> dict[str, Any]:
    return {"query": body["query"], "variables": body.get("variables") or {}}
