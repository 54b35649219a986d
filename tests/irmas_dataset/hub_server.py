"""A server with the part of the Hub's interface that reads a data set: its files, their sizes and their contents."""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args, folder: Path, repo_id: str, **kwargs):
        self.folder, self.repo_id = folder, repo_id
        super().__init__(*args, **kwargs)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(path)
        api = f"/api/datasets/{self.repo_id}"
        if path.startswith(f"/datasets/{self.repo_id}/resolve/"):
            self.send_file(path.split("/", 6)[6])
        elif path == api or path.startswith(f"{api}/revision/"):
            self.send_json(self.info())
        elif found := re.fullmatch(re.escape(api) + r"/tree/[^/]+(?:/(.*))?", path):
            inside = self.folder / (found[1] or "")
            self.send_json([self.entry(p) for p in self.paths() if p.is_relative_to(inside)])
        else:
            self.send_error(404)

    def do_POST(self):
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        wanted = wanted.get("paths", [])
        self.send_json([self.entry(self.folder / name) for name in wanted if (self.folder / name).exists()])

    def paths(self) -> list[Path]:
        return sorted(self.folder.rglob("*"))

    def info(self) -> dict:
        siblings = [{"rfilename": p.relative_to(self.folder).as_posix()} for p in self.paths() if p.is_file()]
        return {"id": self.repo_id, "sha": COMMIT, "private": False, "gated": False, "disabled": False, "downloads": 0,
                "likes": 0, "tags": [], "siblings": siblings, "lastModified": "2026-01-01T00:00:00.000Z"}  # fmt: skip

    def entry(self, path: Path) -> dict:
        name = path.relative_to(self.folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
        return {"type": "file", "path": name, "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes()).hexdigest()}  # fmt: skip

    def send_file(self, name: str) -> None:
        path = self.folder / name
        if not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        content = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(wanted[1]), int(wanted[2] or len(content) - 1)) if wanted else (0, len(content) - 1)
        part = content[first : last + 1]
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{min(last, len(content) - 1)}/{len(content)}")
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(part)

    def send_json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def serve_hub(folder: Path, repo_id: str):
    """Serve a folder as a data set of the Hub on 127.0.0.1; gives the server with its `url` and the paths `asked` for."""
    handler = partial(Handler, folder=folder, repo_id=repo_id)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.url, server.asked = f"http://127.0.0.1:{server.server_port}", []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
