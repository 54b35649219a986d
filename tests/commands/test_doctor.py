"""`doctor` on machines that are broken in each of the ways it knows."""

import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from irmas_dataset.files import load_index
from irmas_recipe.commands import doctor
from irmas_recipe.commands.doctor import (
    check_checkpoints,
    check_gpu,
    check_hub,
    check_imports,
    check_irmas,
    check_irmas_and_disk,
    check_packages,
    check_released,
    failed_import,
    fetch,
    hub_cache,
    pinned_versions,
)

REPOSITORY = Path(__file__).parents[2]
RUN = "import sys; sys.path.insert(0, sys.argv[1]); from irmas_recipe.commands.doctor import main; main(sys.argv[2:])"


def run_doctor(tmp_path: Path, *arguments: str, python: tuple[str, ...] = (), **environment: str):
    """Run doctor in a process of its own, without a network, from an empty folder."""
    command = [sys.executable, *python, "-c", RUN, str(REPOSITORY), *arguments]
    own = {"PATH": "/usr/bin:/bin", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, timeout=120)


def fake_package(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "__init__.py").write_text(code)


FAKE_TORCH = """
__version__ = "2.15.0+cu132"
class version: cuda = "13.2"
class cuda:
    is_available = staticmethod(lambda: False)
"""


def test_a_torchaudio_that_does_not_fit_torch_is_named_with_the_pair_to_install(tmp_path):
    fakes = tmp_path / "fakes"
    fake_package(fakes, "torch", FAKE_TORCH)
    fake_package(
        fakes, "torchaudio", 'raise RuntimeError("PyTorch and TorchAudio were compiled with different CUDA versions.")'
    )
    done = run_doctor(tmp_path, PYTHONPATH=str(fakes))
    assert done.returncode == 1, done.stderr
    assert "BAD   Imports" in done.stdout
    assert "torch 2.15.0+cu132 and the installed torchaudio do not match" in done.stdout
    assert "pip install --force-reinstall torch==2.11.0 torchaudio==2.11.0" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "code", ["raise OSError('libc10_cuda.so: cannot open shared object file')", "import os; os._exit(9)"]
)
def test_a_torch_that_cannot_be_imported_is_a_finding_and_not_a_crash(tmp_path, code):
    fake_package(tmp_path / "fakes", "torch", code)
    done = run_doctor(tmp_path, PYTHONPATH=str(tmp_path / "fakes"))
    assert done.returncode == 1, done.stderr
    assert "BAD   Imports" in done.stdout and "torch==2.11.0 torchaudio==2.11.0" in done.stdout
    assert "IRMAS" in done.stdout and "Hub" in done.stdout


def test_it_works_where_nothing_is_installed_at_all(tmp_path):
    fake_package(tmp_path / "fakes", "torch", "raise ImportError('No module named torch')")  # for doctor's own process
    done = run_doctor(tmp_path, python=("-I", "-S"), PYTHONPATH=str(tmp_path / "fakes"))
    assert done.returncode == 1, done.stderr
    assert "transformers is missing" in done.stdout
    assert f"-m pip install -r {REPOSITORY / 'requirements.txt'}" in done.stdout


@pytest.mark.slow
def test_this_environment_is_healthy(tmp_path):
    done = run_doctor(tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.rstrip().endswith("Ready.")
    assert "BAD" not in done.stdout


def test_versions_are_compared_with_the_pins(tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(
        "# why\nnumpy==1.0.0   # too old\npytest==" + pytest.__version__ + "\nno-such-package[all]==1.2\n"
    )
    assert pinned_versions(requirements) == {"numpy": "1.0.0", "pytest": pytest.__version__, "no-such-package": "1.2"}
    finding = check_packages(requirements)
    assert finding.state == "problem"
    assert "no-such-package is missing" in finding.text and ", not 1.0.0" in finding.text
    assert "pytest" not in finding.text
    assert check_packages(REPOSITORY / "requirements.txt").state == "ok"


def test_a_gpu_that_pytorch_cannot_use_is_a_problem(monkeypatch, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA Fake 9000, 470.1'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    too_old = check_gpu({"gpus": [], "cuda": "13.0"})
    assert too_old.state == "problem"
    assert "NVIDIA Fake 9000, driver 470.1" in too_old.text and "driver is too old" in too_old.text
    for_the_cpu = check_gpu({"gpus": [], "cuda": None})
    assert for_the_cpu.state == "problem" and "built for the CPU alone" in for_the_cpu.text
    monkeypatch.setenv("PATH", "/nowhere")
    assert check_gpu({"gpus": [], "cuda": "13.0"}).state == "note"
    seen = check_gpu({"gpus": [["NVIDIA H100", 80 * 2**30]], "cuda": "13.0"})
    assert (seen.state, seen.text) == ("ok", "NVIDIA H100 (80 GiB), CUDA 13.0")


def test_another_broken_import_is_told_as_it_is():
    facts = {"torch": "2.11.0", "error": "ImportError: cannot import name 'Trainer'"}
    finding = failed_import(facts, "")
    assert "cannot import name 'Trainer'" in finding.text and "requirements.txt" in finding.remedy
    healthy = {"torch": "2.11.0", "torchaudio": "2.11.0", "libsndfile": "1.2", "cuda": "13.0", "gpus": []}
    assert check_imports(healthy, "")[0].state == "ok"


def test_irmas_missing_empty_zipped_incomplete_and_synthetic(tmp_path):
    assert check_irmas(tmp_path / "none", asked_for=False).state == "note"
    absent = check_irmas(tmp_path / "none", asked_for=True)
    assert absent.state == "problem"
    assert absent.remedy == f"irmas download --data_dir {tmp_path / 'none'}"
    (tmp_path / "zips").mkdir()
    assert "has none of IRMAS's folders" in check_irmas(tmp_path / "zips", asked_for=True).text
    (tmp_path / "zips" / "IRMAS-TrainingData.zip").touch()
    zipped = check_irmas(tmp_path / "zips", asked_for=True)
    assert zipped.state == "problem" and "download" in zipped.text

    some = [name for name in load_index() if name.startswith("IRMAS-TrainingData/flu")][:3]
    for name in some:
        path = tmp_path / "some" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    incomplete = check_irmas(tmp_path / "some", asked_for=True)
    assert incomplete.state == "problem" and "3 training and 0 test clips" in incomplete.text
    (tmp_path / "some" / "SYNTHETIC").touch()
    assert check_irmas(tmp_path / "some", asked_for=True).state == "note"


@pytest.mark.slow
def test_the_whole_of_irmas_is_recognised(tmp_path):
    for name in load_index():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if "TestingData" in name:
            path.with_suffix(".txt").write_text("cel\t\n")
    irmas, disk = check_irmas_and_disk(tmp_path)
    assert irmas.state == "ok" and "6705 training and 2874 test clips" in irmas.text
    assert disk.subject == "Disk" and "GB free" in disk.text


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the Hub does when asked who is logged in."""

    def do_GET(self):
        token = self.headers.get("Authorization")
        if self.path != "/api/whoami-v2" or token not in ("Bearer good", "Bearer slow"):
            self.send_error(401)
            return
        if token == "Bearer slow":
            time.sleep(3)
        body = json.dumps({"name": "musician"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A server on this machine in the Hub's place, and nobody logged in."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    yield server
    server.shutdown()
    server.server_close()


def test_who_is_logged_in_at_the_hub(hub, monkeypatch, tmp_path):
    nobody = check_hub()
    assert nobody.state == "note" and "not logged in" in nobody.text and nobody.remedy == "hf auth login"
    (tmp_path / "token").write_text("good\n")
    assert check_hub().state == "ok" and "musician" in check_hub().text
    monkeypatch.setenv("HF_TOKEN", "expired")
    refused = check_hub()
    assert refused.state == "problem" and "code 401" in refused.text and "expired" not in refused.text


def test_a_hub_that_is_down_slow_or_switched_off_never_hangs(hub, monkeypatch):
    monkeypatch.setattr(doctor, "HUB_SECONDS", 0.3)
    monkeypatch.setenv("HF_TOKEN", "slow")
    started = time.monotonic()
    assert check_hub().state == "note" and "does not answer" in check_hub().text
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "does not answer" in check_hub().text
    assert time.monotonic() - started < 5
    assert fetch("http://127.0.0.1:9", {}) == (None, {})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in check_hub().text


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[1,2]", b"SSH-2.0-OpenSSH_9.6\r\n"], ids=["list", "ssh"]
)
def test_a_server_that_is_no_hub_is_told_as_one_that_does_not_answer(hub, monkeypatch, answer):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        finding = check_hub()
    assert finding.state == "note" and "does not answer" in finding.text


def test_checkpoints_that_recipes_need_are_looked_for(tmp_path, monkeypatch):
    recipes, cache = tmp_path / "recipes", tmp_path / "hub"
    for name, checkpoint in {
        "a/one": "org/cached",
        "a/two": "org/cached",
        "b/x": "org/absent",
        "c/x": "released/mn10",
        "d/x": "runs/mine/first",
    }.items():
        (recipes / name).parent.mkdir(parents=True, exist_ok=True)
        (recipes / f"{name}.yaml").write_text(f"# comment\nmodel_name_or_path: {checkpoint}  # from there\n")
    (recipes / "scratch.yaml").write_text("architecture: cnn\n")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    snapshot = cache / "models--org--cached" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    findings = {finding.text.split()[0]: finding for finding in check_checkpoints(recipes, cache)}
    assert set(findings) == {"org/cached", "org/absent", "released/mn10", "runs/mine/first"}
    assert findings["org/cached"].state == "note", "a configuration alone is no checkpoint"
    (snapshot / "model.safetensors").touch()
    findings = {finding.text.split()[0]: finding for finding in check_checkpoints(recipes, cache)}
    assert findings["org/cached"].state == "ok"
    assert findings["org/absent"].remedy == "hf download org/absent"
    assert findings["released/mn10"].remedy == "irmas convert --released mn10"
    assert findings["runs/mine/first"].remedy is None
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    assert hub_cache() == cache
    assert "on this machine: none; fetched when first used: mn10 (19.7 MB), mn04" in check_released().text
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "irmas/mn10").mkdir(parents=True, exist_ok=True)
        (tmp_path / "irmas/mn10" / name).touch()
    assert "on this machine: mn10; fetched when first used: mn04" in check_released().text
    assert {finding.text: finding.state for finding in check_checkpoints(recipes, cache)}["released/mn10"] == "ok"


def test_an_unknown_flag_ends_with_code_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        doctor.main(["--nonsense"])
    assert stopped.value.code == 2
