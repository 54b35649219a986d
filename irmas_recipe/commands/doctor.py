"""`irmas doctor`: is this machine ready, and if not, which command fixes it?

It must work where packages are missing or broken, so it imports none of them: versions come from their metadata, and
imports are tried in a separate process.
"""

import argparse
import http.client
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_dataset.files import TEST_CLIPS, TRAINING_CLIPS, list_irmas
from irmas_recipe.home import shipped
from irmas_recipe.training.released import RELEASED, find_released, hub_home, is_released

OLDEST_PYTHON = (3, 11)
IRMAS_GB = 25  # the zips and what they hold, side by side
IMPORT_SECONDS = 180
HUB_SECONDS = 4

TRY_IMPORTS = """
import json
facts = {}
try:
    import torch
    facts["torch"] = torch.__version__
    facts["cuda"] = torch.version.cuda
    facts["gpus"] = [
        (torch.cuda.get_device_name(i), torch.cuda.get_device_properties(i).total_memory)
        for i in range(torch.cuda.device_count())
    ] if torch.cuda.is_available() else []
    import torchaudio
    facts["torchaudio"] = torchaudio.__version__
    from transformers import Trainer
    import soundfile
    facts["libsndfile"] = soundfile.__libsndfile_version__
except BaseException as error:
    facts["error"] = f"{type(error).__name__}: {error}"
print("FACTS" + json.dumps(facts))
"""


@dataclass
class Finding:
    """One line of the report: `state` is "ok", "note" (it works, with a limit) or "problem"; `remedy` is one command."""

    subject: str
    state: str
    text: str
    remedy: str | None = None


def main(argv: list[str]) -> None:
    """Print the report; exits with code 1 if there is something to fix."""
    parser = argparse.ArgumentParser(
        prog="irmas doctor", description="Check Python, packages, GPU, disk, IRMAS, the Hub and checkpoints."
    )
    parser.add_argument("--data_dir", metavar="D", type=Path, help="where IRMAS should be (default: data/irmas)")
    args = parser.parse_args(argv)
    imports = start_imports()  # takes seconds, in which the rest is checked
    findings = [check_python(), check_packages(shipped("requirements.txt"))]
    others = [
        check_ffmpeg(),
        *check_irmas_and_disk(args.data_dir),
        check_hub(),
        *check_checkpoints(shipped("recipes"), hub_cache()),
        check_released(),
    ]
    findings += [*check_imports(*finish_imports(imports)), *others]
    report(findings)
    if any(finding.state == "problem" for finding in findings):
        raise SystemExit(1)


def report(findings: list[Finding]) -> None:
    """Print one line per finding, and below it what to do."""
    marks = {"ok": "ok  ", "note": "note", "problem": "BAD "}
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{marks[finding.state]}  {finding.subject:<{width}}  {finding.text}")
        if finding.remedy:
            print(f"{'':6}{'':<{width}}  -> {finding.remedy}")
    problems = sum(finding.state == "problem" for finding in findings)
    print(
        "\nReady."
        if not problems
        else f"\n{problems} to fix: run the commands after the arrows below the lines marked BAD."
    )


def check_python() -> Finding:
    """Compare Python with the oldest version that the project runs on."""
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return Finding(
            "Python", "problem", f"{text}; {wanted} or later is needed", f"make PYTHON=python{wanted} quickstart"
        )
    return Finding("Python", "ok", text)


def check_packages(requirements: Path) -> Finding:
    """Compare what is installed with the versions that requirements.txt pins."""
    pins = pinned_versions(requirements)
    wrong = []
    for name, wanted in pins.items():
        try:
            installed = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if installed != wanted:
            wrong.append(f"{name} is {installed}, not {wanted}")
    if wrong:
        return Finding("Packages", "problem", "; ".join(wrong), f"{sys.executable} -m pip install -r {requirements}")
    return Finding("Packages", "ok", f"all {len(pins)} at the versions of {requirements.name}")


def pinned_versions(requirements: Path) -> dict[str, str]:
    """Return package -> version of the lines `name==version`."""
    pins = re.findall(
        r"^([\w.-]+)(?:\[[\w,-]+\])?==([\w.+!-]+)", requirements.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {name: version.partition("+")[0] for name, version in pins}


def start_imports() -> subprocess.Popen:
    """Start a process that imports torch, torchaudio, Trainer and soundfile."""
    return subprocess.Popen(
        [sys.executable, "-c", TRY_IMPORTS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )


def finish_imports(process: subprocess.Popen) -> tuple[dict, str]:
    """Return what the imports reported, and what they wrote to the error stream."""
    try:
        output, complaint = process.communicate(timeout=IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"error": f"the imports took longer than {IMPORT_SECONDS} s"}, ""
    facts = [line.removeprefix("FACTS") for line in output.splitlines() if line.startswith("FACTS")]
    if not facts:
        return {"error": f"Python itself ended with code {process.returncode}"}, complaint
    return json.loads(facts[0]), complaint


def check_imports(facts: dict, complaint: str) -> list[Finding]:
    """Judge the pair of torch and torchaudio, the other imports, and the GPU."""
    if "error" in facts:
        return [failed_import(facts, complaint)]
    text = f"{facts['torch']} and {facts['torchaudio']} load together; libsndfile {facts['libsndfile']}"
    return [Finding("Imports", "ok", f"torch, torchaudio {text}"), check_gpu(facts)]


def failed_import(facts: dict, complaint: str) -> Finding:
    """Name the cause of a failed import; the usual one is a torch and a torchaudio that do not match."""
    pins = pinned_versions(shipped("requirements.txt"))
    pair = " ".join(f"{name}=={pins[name]}" for name in ("torch", "torchaudio"))
    error = " ".join(facts["error"].split())
    mismatch = ("different CUDA versions", "libc10", "libtorch", "undefined symbol", "torch_version")
    if "torch" not in facts or any(sign in error + complaint for sign in mismatch):
        found = (
            f"torch {facts['torch']} and the installed torchaudio do not match" if "torch" in facts else "torch fails"
        )
        remedy = f"{sys.executable} -m pip install --force-reinstall {pair}"
        return Finding("Imports", "problem", f"{found}: {error[:160]}", remedy)
    remedy = f"{sys.executable} -m pip install --force-reinstall -r {shipped('requirements.txt')}"
    return Finding("Imports", "problem", error[:200], remedy)


def check_gpu(facts: dict) -> Finding:
    """Report which GPUs PyTorch sees; one that only the driver sees is a problem."""
    if facts["gpus"]:
        names = ", ".join(f"{name} ({memory / 2**30:.0f} GiB)" for name, memory in facts["gpus"])
        return Finding("GPU", "ok", f"{names}, CUDA {facts['cuda']}")
    driver = driver_gpus()
    if not driver:
        return Finding("GPU", "note", "none: everything runs on the CPU, and fine-tuning is slow")
    pins = pinned_versions(shipped("requirements.txt"))
    install = (
        f"{sys.executable} -m pip install --force-reinstall torch=={pins['torch']} torchaudio=={pins['torchaudio']}"
    )
    if facts["cuda"] is None:
        return Finding("GPU", "problem", f"{driver}, but this PyTorch was built for the CPU alone", install)
    text = f"{driver}, which PyTorch for CUDA {facts['cuda']} cannot use: the driver is too old"
    return Finding("GPU", "problem", text, f"{install} --index-url https://download.pytorch.org/whl/cu126")


def driver_gpus() -> str:
    """Return the GPUs and the driver that nvidia-smi names, or an empty string."""
    if shutil.which("nvidia-smi") is None:
        return ""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "; ".join(line.replace(",", ", driver") for line in done.stdout.splitlines()) if done.returncode == 0 else ""


def check_ffmpeg() -> Finding:
    """Look for the ffmpeg program, which only some formats need."""
    if shutil.which("ffmpeg"):
        return Finding("ffmpeg", "ok", f"{shutil.which('ffmpeg')}")
    installer = {"Darwin": "brew install ffmpeg", "Windows": "winget install ffmpeg"}.get(platform.system())
    text = "not installed: predict reads wav, flac, ogg and mp3, not m4a, wma or video"
    return Finding("ffmpeg", "note", text, installer or "sudo apt-get install ffmpeg")


def check_irmas_and_disk(data_dir: Path | None) -> list[Finding]:
    """Look for IRMAS, and where it is not complete for room to complete it."""
    folder = data_dir or Path("data/irmas")
    irmas = check_irmas(folder, asked_for=data_dir is not None)
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    needed_gb = 5 if irmas.state == "ok" else IRMAS_GB
    if free_gb < needed_gb:
        what = "checkpoints and runs" if irmas.state == "ok" else "IRMAS and its zips"
        text = f"{free_gb:.0f} GB free at {existing}; {what} need {needed_gb} GB"
        return [irmas, Finding("Disk", "note" if free_gb > 5 else "problem", text, f"df -h {existing}")]
    return [irmas, Finding("Disk", "ok", f"{free_gb:.0f} GB free at {existing}")]


def check_irmas(folder: Path, asked_for: bool) -> Finding:
    """Compare a folder's clips with the published 6,705 and 2,874; a missing IRMAS is a problem only if asked for."""
    download = f"irmas download --data_dir {folder}"
    missing = "problem" if asked_for else "note"
    if not folder.exists():
        text = f"there is no {folder}; without it, --data_dir synthetic works"
        return Finding("IRMAS", missing, text, download)
    try:
        listing = list_irmas(folder)
    except UserError as error:
        return Finding("IRMAS", "problem", str(error), download)
    if listing is None:
        return Finding("IRMAS", missing, f"{folder} has none of IRMAS's folders", download)
    counts = {split: sum(clip.split == split for clip in listing.clips) for split in ("train", "test")}
    text = f"{folder}: {listing.title}, {counts['train']} training and {counts['test']} test clips"
    if not listing.is_irmas:
        return Finding("IRMAS", "note", text)
    if (counts["train"], counts["test"]) != (TRAINING_CLIPS, TEST_CLIPS):
        return Finding("IRMAS", "problem", f"{text} of {TRAINING_CLIPS} and {TEST_CLIPS}", download)
    return Finding("IRMAS", "ok", text)


def check_hub() -> Finding:
    """Ask the Hub who is logged in; returns within seconds whatever the network does."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Finding("Hub", "note", "HF_HUB_OFFLINE is set: only files on this machine are used")
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    token = hub_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    status, body = fetch(f"{endpoint}/api/whoami-v2", headers)
    if status is None or status >= 500:
        text = f"{endpoint} does not answer: what is on this machine works, downloading and pushing do not"
        return Finding("Hub", "note", text, f"curl -I {endpoint}")
    if status == 200:
        return Finding("Hub", "ok", f"{endpoint} answers, logged in as {body.get('name', 'someone')}")
    if token:
        return Finding("Hub", "problem", f"{endpoint} refuses the stored token (code {status})", "hf auth login")
    return Finding("Hub", "note", f"{endpoint} answers, not logged in: only push needs it", "hf auth login")


def fetch(address: str, headers: dict[str, str]) -> tuple[int | None, dict]:
    """Return the status (None for no answer, or one that is no JSON object) and the JSON of an address, within HUB_SECONDS."""
    answer: list[tuple[int | None, dict]] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=HUB_SECONDS) as reply:
                body = json.loads(reply.read() or b"{}")
                answer.append((reply.status, body) if isinstance(body, dict) else (None, {}))
        except urllib.error.HTTPError as error:
            answer.append((error.code, {}))
        except (OSError, ValueError, http.client.HTTPException):
            answer.append((None, {}))

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name can take longer than any timeout
    asking.start()
    asking.join(HUB_SECONDS + 1)
    return answer[0] if answer else (None, {})


def hub_cache() -> Path:
    """Return the folder in which the Hub's client keeps its downloads."""
    return Path(os.environ.get("HF_HUB_CACHE", hub_home() / "hub")).expanduser()


def hub_token() -> str:
    """Return the token that the Hub's client would use, or an empty string where nobody is logged in."""
    if os.environ.get("HF_TOKEN"):
        return os.environ["HF_TOKEN"].strip()
    file = Path(os.environ.get("HF_TOKEN_PATH", hub_home() / "token")).expanduser()
    return file.read_text().strip() if file.is_file() else ""


def check_checkpoints(recipes: Path, cache: Path) -> list[Finding]:
    """Report for every checkpoint that a recipe starts from whether it is on this machine."""
    users: dict[str, list[str]] = {}
    for recipe in sorted(recipes.rglob("*.yaml")):
        named = re.search(
            r"^model_name_or_path:\s*['\"]?([^'\"\s#]+)", recipe.read_text(encoding="utf-8"), re.MULTILINE
        )
        if named:
            users.setdefault(named[1], []).append(recipe.relative_to(recipes).as_posix())
    findings = []
    for checkpoint, recipes_of_it in users.items():
        wanted_by = recipes_of_it[0] + (f" and {len(recipes_of_it) - 1} more" if len(recipes_of_it) > 1 else "")
        text = f"{checkpoint} is not on this machine yet (for {wanted_by})"
        if is_here(checkpoint, cache):
            findings.append(Finding("Checkpoint", "ok", checkpoint))
        elif is_released(checkpoint):
            findings.append(
                Finding("Checkpoint", "note", text, f"irmas convert --released {find_released(checkpoint).name}")
            )
        elif checkpoint.count("/") == 1:
            findings.append(Finding("Checkpoint", "note", text, f"hf download {checkpoint}"))
        else:
            findings.append(Finding("Checkpoint", "note", text))
    return findings


def check_released() -> Finding:
    """Report which released checkpoints are on this machine."""
    here = [released.name for released in RELEASED.values() if released.is_cached]
    others = [f"{released.name} ({released.size})" for released in RELEASED.values() if not released.is_cached]
    parts = [f"on this machine: {', '.join(here) or 'none'}"]
    parts += [f"fetched when first used: {', '.join(others)}"] * bool(others)
    return Finding("Released", "ok", "; ".join(parts))


def is_here(checkpoint: str, cache: Path) -> bool:
    """Return whether a local folder, or a cache, has a configuration and weights."""
    if is_released(checkpoint):
        return find_released(checkpoint).is_cached
    snapshots = cache / f"models--{checkpoint.replace('/', '--')}" / "snapshots"
    for folder in (Path(checkpoint), shipped(checkpoint), *snapshots.glob("*")):
        weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
        if (folder / "config.json").is_file() and any(file.exists() for file in weights):
            return True
    return False
