"""Released checkpoints by name, from a local server that breaks off, stalls, lies and refuses."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from huggingface_hub import constants

from irmas_dataset import download as downloading
from irmas_dataset.errors import UserError
from irmas_recipe.commands import convert
from irmas_recipe.home import shipped
from irmas_recipe.training import conversion
from irmas_recipe.training.checkpoint import check_name, load_checkpoint
from irmas_recipe.training.conversion import released_model
from irmas_recipe.training.released import RELEASED, find_released, hub_home
from tests.irmas_dataset.record_server import serve
from tests.tiny import authors_file

ROOT = Path(__file__).parents[2]
MN04, S16 = RELEASED["mn04"], RELEASED["passt-s16"]


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """What stands for mn04's file."""
    return authors_file("mobilenet", tmp_path_factory.mktemp("authors") / MN04.file_name).read_bytes()


@pytest.fixture
def server(contents):
    """A server that has mn04's file and passt-s16's, the second with the contents of the first."""
    with serve({MN04.file_name: contents, "other.pt": b"other", S16.file_name: contents}) as record:
        yield record


@pytest.fixture
def cache(server, contents, tmp_path, monkeypatch):
    """An empty cache on a machine that is online, for which the server's file is the published one."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(downloading, "FIRST_WAIT_SECONDS", 0.005)
    digest = hashlib.sha256(contents).hexdigest()
    addresses = (f"{server.url}/{MN04.file_name}",)
    monkeypatch.setitem(RELEASED, "mn04", replace(MN04, addresses=addresses, size_bytes=len(contents), sha256=digest))
    return tmp_path / "home" / "irmas"


def files_in(folder: Path) -> set[str]:
    """Return the names in the cache, without locks."""
    return {
        path.name for path in [*folder.iterdir(), *(folder / "downloads").iterdir()] if not path.name.endswith(".lock")
    }


def test_every_released_checkpoint_has_an_address_a_licence_a_paper_and_a_converter():
    papers = {entry["abbreviation"] for entry in yaml.safe_load(shipped("CITATION.cff").read_text())["references"]}
    names = "mn10 mn04 passt-s10 passt-s16 passt-openmic beats-iter3plus beats-iter3plus-cpt2 beats-iter3-cpt1"
    assert list(RELEASED) == names.split()
    for name, released in RELEASED.items():
        assert released.name == name and released.architecture in conversion.CONVERTERS
        assert {address.rpartition("/")[2] for address in released.addresses} == {released.file_name}
        assert all(address.startswith("https://") for address in released.addresses)
        assert released.licence in ("mit", "apache-2.0") and released.citation in papers
        assert released.sha256 is None or len(bytes.fromhex(released.sha256)) == 32


def test_the_cache_lies_where_the_hubs_client_keeps_its_own():
    assert str(hub_home()) == constants.HF_HOME


def test_a_checkpoint_is_fetched_converted_and_kept_once(server, cache, caplog):
    folder = released_model("released/mn04")
    assert folder == cache / "mn04" and files_in(cache) == {"mn04", "downloads"}
    assert "Fetching released/mn04 (0." in caplog.text and "mit licence" in caplog.text
    model, extractor = load_checkpoint("released/mn04")
    assert model.config.num_labels == 527 and model.config.released_as == MN04.file_name
    assert extractor.sampling_rate == 32000
    assert released_model("mn04") == folder and len(server.requests) == 1


def test_a_cached_checkpoint_needs_no_writable_cache_and_no_network(server, cache, monkeypatch):
    folder = released_model("mn04")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for file in cache.glob(".*"):
        file.unlink()
    cache.chmod(0o555)
    try:
        assert released_model("mn04") == folder and not list(cache.glob(".*.lock"))
    finally:
        cache.chmod(0o755)


def test_a_transfer_that_breaks_off_and_stalls_is_resumed(server, cache, monkeypatch):
    monkeypatch.setattr(downloading, "TIMEOUT_SECONDS", (1, 0.2))
    server.breaks_after, server.stalls = [16_384, 40_000], [0, 0, 1.0]
    assert (released_model("mn04") / "model.safetensors").is_file()
    assert [first for _, first in server.requests] == [0, 16_384, 49_152, 49_152]


def test_a_killed_download_is_resumed_by_the_next_process(server, cache, contents):
    part = cache / "downloads" / f"{MN04.file_name}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(contents[:1000])
    (cache / ".mn04.unfinished").mkdir()
    (cache / "mn04").mkdir()  # deleted in part, by somebody else
    released_model("mn04")
    assert server.requests == [(MN04.file_name, 1000)] and files_in(cache) == {"mn04", "downloads"}


@pytest.mark.parametrize("wrong", [b"<html>Please log in</html>", "of the right length"])
def test_another_file_than_the_published_one_is_discarded(server, cache, contents, wrong):
    server.files[MN04.file_name] = wrong if isinstance(wrong, bytes) else contents[:-1] + b"x"
    difference = f"26 bytes instead of {len(contents):,}" if isinstance(wrong, bytes) else "its SHA256 differs"
    with pytest.raises(UserError) as error:
        released_model("mn04")
    told = str(error.value)
    assert f"{server.url}/{MN04.file_name} is not the published file ({difference})" in told and "\n" not in told
    assert str(cache / "downloads" / MN04.file_name) in told
    assert (cache / "downloads" / f"{MN04.file_name}.part").read_bytes() == b"" and not (cache / "mn04").exists()
    server.files[MN04.file_name] = contents
    assert released_model("mn04").is_dir()


def test_a_mirror_is_asked_where_the_first_address_fails(server, cache, monkeypatch, caplog):
    addresses = (f"{server.url}/moved/{MN04.file_name}x", "http://127.0.0.1:9/x.pt", *RELEASED["mn04"].addresses)
    monkeypatch.setitem(RELEASED, "mn04", replace(RELEASED["mn04"], addresses=addresses))
    released_model("mn04")
    assert "404" in caplog.text and "cannot be reached" in caplog.text
    monkeypatch.setitem(RELEASED, "mn10", replace(RELEASED["mn10"], addresses=addresses[:2]))
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9.* or put the file at .*mn04_as_mAP_432\.ptx by hand"):
        released_model("mn10")


def test_an_environment_variable_names_a_mirror_which_cannot_change_the_file(server, cache, contents, monkeypatch):
    monkeypatch.setitem(
        RELEASED, "mn04", replace(RELEASED["mn04"], addresses=("http://127.0.0.1:9/" + MN04.file_name,))
    )
    monkeypatch.setenv("IRMAS_MIRROR", server.url + "/")
    server.files[MN04.file_name] = contents[:-1] + b"x"
    with pytest.raises(UserError, match="cannot be reached"):
        released_model("mn04")
    server.files[MN04.file_name] = contents
    assert released_model("mn04").is_dir()


def test_the_hubs_endpoint_may_be_a_mirror(server, cache, monkeypatch):
    address = f"https://huggingface.co/{MN04.file_name}"
    monkeypatch.setitem(RELEASED, "mn04", replace(RELEASED["mn04"], addresses=(address,)))
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    assert released_model("mn04").is_dir()


def test_an_unpinned_file_is_named_by_its_digest_and_has_to_fit_exactly(server, cache, contents, monkeypatch, caplog):
    monkeypatch.setitem(RELEASED, "passt-s16", replace(S16, addresses=(f"{server.url}/{S16.file_name}",)))
    with pytest.raises(UserError, match="is not a PaSST checkpoint"):
        released_model("passt-s16")
    assert f"released/passt-s16: nobody has published its SHA256; that of this file is {hashlib.sha256(contents).hexdigest()}" in caplog.text  # fmt: skip
    assert files_in(cache) == {"downloads"}, "what cannot be converted is not resumed"


def test_a_file_put_there_by_hand_is_checked_taken_and_kept(server, cache, contents, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    by_hand = cache / "downloads" / MN04.file_name
    with pytest.raises(UserError) as error:
        released_model("mn04")
    told = str(error.value)
    assert told.startswith("released/mn04 is not on this machine, and HF_HUB_OFFLINE is set") and "\n" not in told
    assert f"{server.url}/{MN04.file_name}" in told and str(by_hand) in told
    by_hand.write_bytes(contents[:5000])
    with pytest.raises(UserError, match=f"{by_hand} is not the published file.*5,000 bytes.*delete it"):
        released_model("mn04")
    by_hand.write_bytes(contents)
    assert released_model("mn04").is_dir() and by_hand.read_bytes() == contents and not server.requests


def test_an_unknown_name_is_met_with_the_nearest_one(cache):
    with pytest.raises(UserError, match=r"^There is no released checkpoint mn1: did you mean released/mn1?0[4]?\?$"):
        load_checkpoint("released/mn1")
    with pytest.raises(UserError, match="choose one of mn10, mn04, passt-s10"):
        find_released("released/whisper")
    with pytest.raises(UserError, match="released/mn04 is no finished run"):
        check_name("released/mn04")


def test_a_cache_that_cannot_be_written_is_named(cache, monkeypatch):
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    with pytest.raises(UserError, match=f"cannot be written to {cache}: .*HF_HOME"):
        released_model("mn04")


def test_convert_writes_a_released_checkpoint_to_a_folder_or_keeps_it_in_the_cache(server, cache, tmp_path, capsys):
    convert.main(["--released", "mn04"])
    assert f"released/mn04 is in {cache / 'mn04'}" in capsys.readouterr().out
    convert.main(["--released=released/mn04", str(tmp_path / "model")])
    assert json.loads((tmp_path / "model/config.json").read_text())["released_as"] == MN04.file_name
    assert load_checkpoint(str(tmp_path / "model")) and len(server.requests) == 1
    with pytest.raises(UserError, match="has a model"):
        convert.main(["--released", "mn04", str(tmp_path / "model")])
    with pytest.raises(UserError, match="did you mean"):
        convert.main(["--released", "mn4"])
    for wrong in (["--released", "mn04", "a", "b"], ["mobilenet", "a.pt"], []):
        with pytest.raises(SystemExit):
            convert.main(wrong)


def test_two_processes_at_once_download_once(tmp_path):
    file = authors_file("passt", tmp_path / S16.file_name)
    with serve({S16.file_name: file.read_bytes()}) as record:
        record.stalls = [1.0]
        own = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"), "IRMAS_MIRROR": record.url}
        command = [sys.executable, str(ROOT / "run_irmas.py"), "convert", "--released", "passt-s16"]
        options = {"env": os.environ | own, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        both = [subprocess.Popen(command, **options) for _ in range(2)]
        outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert [name for name, _ in record.requests] == [S16.file_name]
    assert all("released/passt-s16 is in" in out for out, _ in outputs)
    assert sum("Fetching released/passt-s16 (size unknown, apache-2.0 licence) once." in err for _, err in outputs) == 1
