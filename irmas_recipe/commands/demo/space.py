"""The page as a Space: a folder that works on the Hub without this repository."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_dataset.whole_file import whole_folder
from irmas_recipe.commands.demo.arguments import GRADIO, LARGEST_FILE
from irmas_recipe.commands.demo.examples import write_examples
from irmas_recipe.home import PACKAGE, shipped
from irmas_recipe.models.pipeline.attach import attach_pipeline
from irmas_recipe.models.pipeline.instrument_recognition import TASK
from irmas_recipe.models.pipeline.separation import separation_of
from irmas_recipe.training.checkpoint import check_name

PAGE = PACKAGE / "commands" / "demo" / "page.py"
OWN_IMPORT = re.compile(r"^( *)from (?:irmas_recipe\.([\w.]+\.)?|\.)(\w+) import", re.MULTILINE)
"""An import of one of our modules: by its full name, or from the same folder."""

PACKAGES = ("torch", "torchaudio", "transformers", "soundfile", "soxr", "matplotlib", "jinja2")
APP = '''"""{title}: the page of a Space, made by `irmas demo --export_space`."""

from pathlib import Path

from transformers import pipeline

from page import build_page

HERE = Path(__file__).parent
MODEL = {model}

recognise = pipeline("{task}", model=MODEL, trust_remote_code=True)
page = build_page(recognise, {name!r}, sorted((HERE / "examples").glob("*.wav")))

if __name__ == "__main__":
    page.launch(max_file_size="{largest}")
'''
CARD = """---
title: Instrument recognition
emoji: 🎻
colorFrom: blue
colorTo: yellow
sdk: gradio
sdk_version: {gradio}
python_version: "3.11"
app_file: app.py
pinned: false
short_description: Which instruments are playing, and when?
{models}tags:
- audio-classification
- music
---

# Which instruments are playing, and when?

Drop a piece of music or record one: the page shows which instruments are heard, for how long and when.
The examples are synthesised. Model: {name}.
"""


def export_space(model: str, folder: Path) -> None:
    """Write app.py, its modules, requirements.txt, README.md, examples and, for a run folder, the model itself.

    Raises:
        UserError: no such model, or one that cannot run in a Space.
    """
    check_name(model)
    is_local = Path(model).is_dir()
    packages = packages_of(Path(model)) if is_local else PACKAGES
    name = Path(model).resolve().name if is_local else model
    with whole_folder(folder) as unfinished:
        write_space(model, name, is_local, packages, unfinished)


def write_space(model: str, name: str, is_local: bool, packages: Sequence[str], folder: Path) -> None:
    """Write the Space's files; `name` is the model's in words, `packages` what it installs."""
    if is_local:
        copy_model(Path(model), folder / "model")
    for module in modules_behind(PAGE):
        (folder / module.name).write_text(with_flat_imports(module.read_text(encoding="utf-8")), encoding="utf-8")
        for own in set(module.parent.glob(f"{module.stem}.*")) - {module}:  # its template, style and script
            shutil.copyfile(own, folder / own.name)
    write_examples(folder / "examples", labels_of(Path(model)) if is_local else None)
    app = APP.format(
        title="Instrument recognition", task=TASK, name=name, largest=LARGEST_FILE,
        model='str(HERE / "model")' if is_local else repr(model),
    )  # fmt: skip
    (folder / "app.py").write_text(app, encoding="utf-8")
    card = CARD.format(gradio=GRADIO, name=name, models="" if is_local else f"models:\n- {model}\n")
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(pins_of(packages)) + "\n", encoding="utf-8")


def labels_of(model: Path) -> list[str]:
    """Return the labels of a saved model."""
    return list(json.loads((model / "config.json").read_text(encoding="utf-8"))["id2label"].values())


def packages_of(model: Path) -> tuple[str, ...]:
    """Return what a model's Space installs.

    Raises:
        UserError: the model listens to a part of the music that a Space cannot separate.
    """
    try:
        separate = separation_of(json.loads((model / "config.json").read_text(encoding="utf-8")).get("separation"))
    except ValueError as error:
        raise UserError(f"{model} cannot become a Space: {error}") from error
    return PACKAGES if separate is None else (*PACKAGES, "librosa")


def pins_of(packages: tuple[str, ...]) -> list[str]:
    """Return the packages with the versions that requirements.txt pins, such as `torch==2.11.0`."""
    pins = shipped("requirements.txt").read_text(encoding="utf-8")
    return [pin[0] for pin in re.finditer(r"^([\w-]+)==[\w.]+", pins, re.MULTILINE) if pin[1] in packages]


def copy_model(run: Path, folder: Path) -> None:
    """Copy what is needed to load a model, and nothing else of its run."""
    folder.mkdir()
    for pattern in ("config.json", "preprocessor_config.json", "model*.safetensors*", "*.py"):
        for file in run.glob(pattern):
            shutil.copyfile(file, folder / file.name)
    attach_pipeline(folder)


def modules_behind(start: Path) -> list[Path]:
    """Return a file of this package and every file of it that the first one imports, directly or not."""
    found, waiting = [], [start]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.append(module)
            for own in OWN_IMPORT.finditer(module.read_text(encoding="utf-8")):
                folder = module.parent if "irmas_recipe" not in own[0] else PACKAGE / (own[2] or "").replace(".", "/")
                waiting.append(folder / f"{own[3]}.py")
    return found


def with_flat_imports(code: str) -> str:
    """Return code of this package with its modules imported from the same folder, as they lie in a Space."""
    return OWN_IMPORT.sub(r"\1from \3 import", code)
