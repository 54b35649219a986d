"""The demo's page as a server: it gives nothing away, takes no file over its limit, and answers 200 requests at once."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.robustness.bad_audio import encoded, tone

pytest.importorskip("gradio", reason="Gradio is optional and not installed")
pytestmark = pytest.mark.slow
REQUESTS = 200


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The real page with a tiny model and a limit of 200 kB a file; gives its address."""
    from irmas_recipe.commands.demo.page import build_page
    from irmas_recipe.training.recogniser import load_recogniser
    from tests.robustness.tiny_run import start, write_recipe

    folder = tmp_path_factory.mktemp("demo")
    write_recipe(folder, max_steps=3)
    done = start(folder, "tiny.yaml")
    assert done.returncode == 0, done.stderr[-2000:]
    built = build_page(load_recogniser(str(folder / "runs/tiny"), device="cpu"), "tiny", [])
    _, address, _ = built.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, max_file_size="200kb", allowed_paths=[]
    )
    yield address.rstrip("/")
    built.close()


def upload(address: str, content: bytes) -> requests.Response:
    return requests.post(
        f"{address}/gradio_api/upload", files={"files": ("music.wav", io.BytesIO(content))}, timeout=60
    )


def recognise(address: str, path: str) -> str:
    """Ask for the instruments of a file on the server; returns the stream of events."""
    data = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
    asked = requests.post(f"{address}/gradio_api/call/recognise", json=data, timeout=300)
    if asked.status_code != 200:
        return f"event: error {asked.status_code} {asked.text}"
    return requests.get(f"{address}/gradio_api/call/recognise/{asked.json()['event_id']}", timeout=600).text


def test_two_hundred_requests_at_once_are_all_answered(page):
    path = upload(page, encoded(tone())).json()[0]
    with ThreadPoolExecutor(REQUESTS) as threads:
        answers = list(threads.map(lambda _: recognise(page, path), range(REQUESTS)))
    assert sum("event: complete" in answer for answer in answers) == REQUESTS
    assert requests.get(page, timeout=60).status_code == 200


def test_a_file_over_the_limit_is_refused(page):
    assert upload(page, encoded(tone(seconds=5.0), subtype="PCM_24")).status_code >= 400
    assert requests.get(page, timeout=60).status_code == 200


def test_paths_outside_what_it_was_given_are_refused(page, tmp_path):
    (tmp_path / "secret.wav").write_bytes(encoded(tone()))
    for path in (str(tmp_path / "secret.wav"), "/etc/passwd", str(Path(__file__)), "../../../../etc/passwd"):
        assert "event: complete" not in recognise(page, path), path
        for form in ("file", "file/"):
            answer = requests.get(f"{page}/gradio_api/{form}={path}", timeout=60)
            assert answer.status_code >= 400 and "root:" not in answer.text, path
