"""Loading is strict, what cannot be loaded is named with the way out, and a silent Hub is noticed within seconds."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
from huggingface_hub import constants

from irmas_dataset.errors import UserError
from irmas_recipe.training import checkpoint
from irmas_recipe.training.checkpoint import check_name, first_sentence, load_checkpoint, reach_hub


def test_a_model_is_loaded_in_float32_whatever_it_was_saved_in(audioset_ast, tmp_path):
    model, extractor = load_checkpoint(str(audioset_ast))
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    again, _ = load_checkpoint(str(tmp_path))
    for (name, tensor), saved in zip(again.state_dict().items(), model.state_dict().values(), strict=True):
        assert tensor.dtype == torch.float32 and torch.equal(tensor, saved.float()), name
    assert not again.training


def test_the_configuration_can_be_adapted_before_the_weights_are_loaded(audioset_ast):
    def adapt(config, extractor):
        config.hidden_dropout_prob, extractor.max_length = 0.25, 500
        return extractor

    model, extractor = load_checkpoint(str(audioset_ast), adapt=adapt)
    assert model.audio_spectrogram_transformer.layers[0].dropout.p == 0.25 and extractor.max_length == 500


@pytest.fixture
def here(tmp_path, monkeypatch, audioset_ast):
    """A working directory with a run, an empty folder and a file."""
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/tiny", "empty"):
        (tmp_path / folder).mkdir(parents=True)
    for file in audioset_ast.iterdir():
        (tmp_path / "runs/tiny" / file.name).symlink_to(file)
    (tmp_path / "song.wav").touch()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("runs", "runs has no config.json: did you mean runs/tiny?"),
        ("empty", "empty has no config.json: give the folder of a finished run."),
        ("song.wav", "song.wav is a file: give the folder of a finished run, or the id of a model on the Hub."),
        (
            "runs/tyni",
            "There is no folder runs/tyni: give the folder of a finished run, or the id of a model on the Hub.",
        ),
        ("./tiny", "There is no folder ./tiny: give the folder of a finished run, or the id of a model on the Hub."),
        ("a/b/c", "There is no folder a/b/c: give the folder of a finished run, or the id of a model on the Hub."),
    ],
)
def test_a_name_that_is_no_model_is_refused_with_the_way_out(here, name, sentence):
    with pytest.raises(UserError) as error:
        check_name(name)
    assert str(error.value) == sentence
    with pytest.raises(UserError) as error:
        load_checkpoint(name)
    assert str(error.value) == sentence


@pytest.mark.parametrize("name", ["runs/tiny", "someone/a-model", "gpt2"])
def test_a_folder_with_a_model_and_an_id_on_the_hub_are_accepted(here, name):
    check_name(name)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("No such file: a.json. Check it.\nMore.", "No such file: a.json"),
        ("Bad field 'x':\n    TypeError: not an int.", "Bad field 'x': TypeError: not an int"),
        ("", "ValueError"),
    ],
)
def test_the_first_sentence_of_an_error(said, sentence):
    assert first_sentence(ValueError(said)) == sentence


def test_a_silent_hub_is_told_with_two_ways_out(ask):
    ask(9, "no/name/of/the/Hub")
    with pytest.raises(UserError, match=r"^nobody/nothing is neither .*refused.*hf download nobody/nothing`\.$"):
        load_checkpoint("nobody/nothing")


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
