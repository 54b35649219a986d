"""A local stand-in for the public record: a real HTTP server that serves zips well or badly, and small IRMAS zips."""

import hashlib
import io
import re
import threading
import time
import zipfile
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from irmas_dataset.download import Archive

CLIPS = {
    "IRMAS-TrainingData": ["IRMAS-TrainingData/cel/[cel][cla]0001__1.wav", "IRMAS-TrainingData/voi/[voi][pop_roc]0002__1.wav"],
    "IRMAS-TestingData-Part2": [
        "IRMAS-TestingData-Part2/IRTestingData-Part2/07-Blue Corridor-1.wav",
        "IRMAS-TestingData-Part2/IRTestingData-Part2/07-Blue Corridor-2.wav",
    ],
}  # fmt: skip


def contents_of(name: str) -> bytes:
    """Return what stands for the audio of a clip: bytes that do not compress and depend on its name."""
    return b"".join(hashlib.sha256(f"{name} {block}".encode()).digest() for block in range(2000))


def zip_bytes(files: dict[str, bytes]) -> bytes:
    """Return a zip of these files; its bytes depend on nothing else."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, contents in files.items():
            opened.writestr(zipfile.ZipInfo(name), contents)
    return buffer.getvalue()


def irmas_zip(folder: str) -> bytes:
    """Return a small zip of one of IRMAS's folders, with annotations in a test part."""
    files = {name: contents_of(name) for name in CLIPS[folder]}
    if folder.startswith("IRMAS-TestingData"):
        files |= {name.replace(".wav", ".txt"): b"sax\t\n" for name in CLIPS[folder]}
    return zip_bytes(files)


def archive_of(folder: str, contents: bytes, clips: int = 2) -> Archive:
    return Archive(folder, hashlib.md5(contents).hexdigest(), clips)


ZIPS = {f"{folder}.zip": irmas_zip(folder) for folder in CLIPS}
PARTS = tuple(archive_of(folder, ZIPS[f"{folder}.zip"]) for folder in CLIPS)


class Record:
    """What the server serves, how badly, and what it was asked for."""

    def __init__(self, files: dict[str, bytes]):
        self.files = files
        self.url = ""
        self.requests: list[tuple[str, int]] = []  # file name, first byte
        self.breaks_after: list[int] = []  # bytes sent before the connection breaks, one entry per request
        self.stalls: list[float] = []  # seconds of silence before the contents, one entry per request
        self.statuses: list[int] = []  # errors to answer with, one per request, before it works
        self.honours_ranges = True
        self.extra_length = 0  # bytes that the header promises and the body lacks (or has, if negative)
        self.seconds_per_piece = 0.0
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        record: Record = self.server.record
        name = self.path.split("/")[-1].split("?")[0]
        first = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        with record.lock:
            record.requests.append((name, first))
            status = record.statuses.pop(0) if record.statuses else 200
            stall_seconds = record.stalls.pop(0) if record.stalls else 0
            break_after = record.breaks_after.pop(0) if record.breaks_after else None
        if status != 200 or name not in record.files:
            self.send_error(status if status != 200 else 404)
            return
        whole = record.files[name]
        first = first if record.honours_ranges else 0
        if first and first >= len(whole):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(whole) - 1}/{len(whole)}")
        body = whole[first:]
        self.send_header("Content-Length", str(len(body) + record.extra_length))
        self.end_headers()
        time.sleep(stall_seconds)
        body = body[:break_after]
        with suppress(ConnectionError):  # the client has lost its patience
            for start in range(0, len(body), 4096):
                self.wfile.write(body[start : start + 4096])
                time.sleep(record.seconds_per_piece)
        self.close_connection = True

    def log_message(self, *args):
        pass


@contextmanager
def serve(files: dict[str, bytes]):
    """Serve `files` on 127.0.0.1, one thread a connection; gives the `Record`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.record = Record(files)
    server.record.url = f"http://127.0.0.1:{server.server_port}/files"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.record
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
