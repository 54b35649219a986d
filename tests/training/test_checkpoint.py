"""The question whether the Hub is there: a sentence soon where nobody answers, and none where nobody need be asked."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import constants

from irmas_recipe.training import checkpoint
from irmas_recipe.training.checkpoint import reach_hub


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Return a function that asks a Hub at this port of this machine, with an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checkpoint, "TIMEOUT_SECONDS", 0.3)

    def ask(port: int, model: str = "nobody/nothing") -> None:
        address = f"http://127.0.0.1:{port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        reach_hub(model)

    return ask


def test_nobody_there(ask):
    with pytest.raises(ConnectionError, match="refused"):
        ask(9)


def test_somebody_who_never_answers(ask):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ConnectionError, match="Hub cannot be reached"),
    ):
        ask(silent.getsockname()[1])


@pytest.mark.parametrize("status", [401, 404, 503])
def test_a_hub_that_answers_is_left_to_whoever_loads_the_model(ask, status):
    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *words):
            pass

    asked = []
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            ask(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()
    assert asked == ["/nobody/nothing/resolve/main/config.json"]


def test_nobody_is_asked_about_a_folder_a_cached_model_or_offline(ask, monkeypatch, tmp_path):
    ask(9, str(tmp_path))
    ask(9, "no/name/of/the/Hub")
    cached = tmp_path / "cache/models--some--one"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("abc")
    (cached / "snapshots/abc").mkdir(parents=True)
    (cached / "snapshots/abc/config.json").write_text("{}")
    ask(9, "some/one")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    ask(9)
