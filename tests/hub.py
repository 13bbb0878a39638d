"""A stand-in of the Hugging Face hub's API on the loopback interface: data sets in memory.

It answers what `huggingface_hub` asks in order to look at a data set, create one and commit to it,
as https://huggingface.co/docs/hub/api and the library's own requests have it. All files are taken
"regular", that is in the commit's body; of large files the real hub has them uploaded beside it.
"""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """repositories: content by path by name; commits: name and summary; tokens: those that may."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.private, self.commits = {}, {}, []
        self.tokens = {"hf_mine"}

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server_port}"

    def sha(self, name):
        """A commit's id: the number of commits so far."""
        return f"{sum(of == name for of, _ in self.commits):040x}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def log_message(self, *_):
        """Say nothing."""

    def do_GET(self):
        parts = self.path.partition("?")[0].strip("/").split("/")
        name = "/".join(parts[2:4])
        if parts[:2] != ["api", "datasets"] or name not in self.server.repositories:
            return self.answer(404, {"error": "Repository not found"}, "RepoNotFound")
        files = [{"rfilename": path} for path in self.server.repositories[name]]
        return self.answer(200, {"id": name, "sha": self.server.sha(name), "siblings": files})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in self.server.tokens:
            return self.answer(401, {"error": "Invalid credentials in Authorization header"})
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            return self.create(json.loads(body))
        if parts == ["api", "validate-yaml"]:
            return self.answer(200, {"errors": [], "warnings": []})
        name, action = "/".join(parts[2:4]), parts[4]
        if action == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        return self.commit(name, [json.loads(line) for line in body.splitlines()])

    def create(self, wanted):
        name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        self.server.repositories[name] = {".gitattributes": b"*.parquet filter=lfs"}
        self.server.private[name] = bool(wanted.get("private")) or (
            wanted.get("visibility") == "private"
        )
        return self.answer(200, {"url": f"{self.server.endpoint}/datasets/{name}", "name": name})

    def commit(self, name, lines):
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, self.server.sha(name)):
            return self.answer(412, {"error": "A commit has happened since"})
        there = self.server.repositories[name]
        for line in lines:
            if line["key"] == "file":
                there[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del there[line["value"]["path"]]
        self.server.commits.append((name, header["summary"]))
        url = f"{self.server.endpoint}/datasets/{name}/commit/{self.server.sha(name)}"
        return self.answer(200, {"commitUrl": url, "commitOid": self.server.sha(name)})

    def answer(self, status, said, code=None):
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def running():
    """A hub that listens until the block ends."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
