"""Hugging Face Jobs on this machine: `hf` is the installed one, with another end of the line; `uv` is what the image has.

A job's volumes are folders here, and the paths below which it sees them are replaced in its command.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from huggingface_hub import HfApi, Volume
from huggingface_hub.cli.hf import main

STATE = Path(os.environ["JOBS"])


def upload(api: HfApi, source: str, mount_path: str, **options: Any) -> Volume:
    """Keep a copy of a local folder, as a bucket would."""
    shutil.copytree(source, STATE / "uploaded", dirs_exist_ok=True)
    return Volume(type="bucket", source="me/jobs-artifacts", path="uploaded", mount_path=mount_path, read_only=True)


def run(api: HfApi, *, image: str, command: list[str], volumes: list[Volume], attempts: int, **options: Any) -> Any:
    """Run a job's command until an attempt succeeds."""
    mounted = {volume.mount_path: STATE / (volume.path or volume.source) for volume in volumes}
    for folder in mounted.values():
        folder.mkdir(parents=True, exist_ok=True)
    for path, folder in mounted.items():
        command = [str(folder) + word.removeprefix(path) if word.startswith(f"{path}/") else word for word in command]
    (STATE / "job.json").write_text(json.dumps({"image": image, "flavor": options["flavor"], "timeout": options["timeout"],
                                                "secrets": options["secrets"], "mounted": list(mounted)}))  # fmt: skip
    for attempt in range(attempts):
        with open(STATE / "job.log", "a") as log:
            container = subprocess.Popen(
                command, cwd=STATE, env=os.environ | options["secrets"], stdout=log, stderr=log
            )
            (STATE / "container").write_text(f"{attempt} {container.pid}")
            if container.wait() == 0:
                break
    return SimpleNamespace(id="1", url="", labels={}, owner=SimpleNamespace(name="me"), network=None,
                           status=SimpleNamespace(expose_urls=None, ssh_url=None))  # fmt: skip


def uv(arguments: list[str]) -> None:
    """Become the command of `uv run`, with a wheel that is unpacked instead of installed."""
    run, _, flag, wheel, *command = arguments
    assert (run, flag) == ("run", "--with")
    installed = STATE / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    os.environ["PYTHONPATH"] = str(installed)
    os.execvp(command[0], command)


if __name__ == "__main__":
    if sys.argv[1] == "uv":
        uv(sys.argv[2:])
    HfApi.sync_job_volume, HfApi.run_job = upload, run
    sys.argv = sys.argv[1:]
    main()
