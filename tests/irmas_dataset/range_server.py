"""A web server as exports are served from: it lists its folders and answers range requests."""

import io
import re
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def send_head(self):
        path, wanted = (
            Path(self.translate_path(self.path)),
            re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")),
        )
        if self.server.stumbles and path.suffix == ".parquet" and wanted:
            self.server.stumbles -= 1
            self.send_error(503)
            return None
        if not wanted or not path.is_file():
            return super().send_head()
        content = path.read_bytes()
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        part = content[first : last + 1]
        self.server.sent.append(len(part))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        return io.BytesIO(part)

    def end_headers(self):
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *args):
        pass


@contextmanager
def serve_folder(folder: Path):
    """Serve a folder on 127.0.0.1; gives the server with its `url`, bytes `sent` and `stumbles` (503s to come)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.url, server.sent, server.stumbles = f"http://127.0.0.1:{server.server_port}", [], 0
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
