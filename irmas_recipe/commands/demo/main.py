"""`run_irmas.py demo MODEL`: a page on this machine that hears music and shows its instruments; or a Space of it."""

import argparse
import importlib.util
import json
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from irmas_dataset.errors import UserError
from irmas_dataset.labels import readable_name
from irmas_dataset.synthetic import SAMPLE_RATE, draw_style, play
from irmas_recipe.commands.arguments import check_output_folder
from irmas_recipe.home import PACKAGE, shipped
from irmas_recipe.models.pipeline.instrument_recognition import TASK, attach_pipeline, separation_of
from irmas_recipe.training.recogniser import check_model_name, load_recogniser

GRADIO = "6.31.0"
LARGEST_FILE = "500mb"  # that may be dropped: about an hour of uncompressed music
EXAMPLES = ((("pia",), ("pia", "vio")), (("sax",), ("org",)), (("gac",), ("gac", "voi")))
"""Instruments of each example's first and second half."""

SPACE_CODE = (
    "commands/demo/page.py",
    "report/timeline.py",
    "report/text.py",
    "models/pipeline/instrument_recognition.py",
)
SPACE_PACKAGES = ("torch", "torchaudio", "transformers", "soundfile", "soxr", "matplotlib")
APP = '''"""{title}: the page of a Space, made by `run_irmas.py demo --export_space`."""

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
SPACE_CARD = """---
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

Drop a piece of music or record one: the page shows the score of each instrument and when it is heard.
The examples are synthesised. Model: {name}.
"""


def main(argv: list[str]) -> None:
    """Open a page on this machine that says which instruments a piece of music holds, or write it as a Space."""
    parser = argparse.ArgumentParser(prog="run_irmas.py demo", description=main.__doc__)
    parser.add_argument("model", metavar="MODEL", help="folder of a run, or id of a model on the Hub")
    parser.add_argument(
        "--port", metavar="N", type=int, default=7860, help="of the page's address (default: %(default)s)"
    )
    parser.add_argument("--export_space", metavar="DIR", type=Path, help="write a Space into this new folder instead")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, mps (default: the first GPU, else the CPU)")
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that a model on the Hub brings")
    args = parser.parse_args(argv)
    if args.export_space:
        export_space(args.model, args.export_space)
        print(f"Wrote a Space: hf upload --repo-type space YOUR_NAME/instrument-recognition {args.export_space} .")
        return
    if importlib.util.find_spec("gradio") is None:
        raise UserError(f"demo needs Gradio, which is not installed: run `pip install gradio=={GRADIO}`.")
    recognise = load_recogniser(args.model, device=args.device, trust_remote_code=args.trust_remote_code)
    from irmas_recipe.commands.demo.page import build_page

    with tempfile.TemporaryDirectory(prefix="irmas-demo-") as folder:
        page = build_page(recognise, Path(args.model).name, write_examples(Path(folder)))
        try:
            page.launch(
                server_name="127.0.0.1",
                server_port=args.port,
                share=False,
                allowed_paths=[folder],
                max_file_size=LARGEST_FILE,
            )
        except OSError as error:
            raise UserError(f"Port {args.port} cannot be used; give another one with --port.") from error


def write_examples(folder: Path) -> list[Path]:
    """Write short synthetic clips whose instruments change half-way, and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    examples = []
    for number, halves in enumerate(EXAMPLES):
        rng = np.random.default_rng(number)
        ensemble = tuple(dict.fromkeys(code for half in halves for code in half))
        style = draw_style(ensemble, drums=False, rng=rng)
        clip = np.concatenate([play(style, half, 5 * SAMPLE_RATE, rng) for half in halves])
        names = [" and ".join(readable_name(code) for code in half) for half in halves]
        examples.append(folder / f"{names[0]}, then {names[1]}.wav")
        soundfile.write(examples[-1], clip, SAMPLE_RATE)
    return examples


def export_space(model: str, folder: Path) -> None:
    """Write app.py, its modules, requirements.txt, README.md, examples and, of a run folder, the model itself."""
    check_model_name(model)
    check_output_folder(folder, "--export_space")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; name a new folder for the Space.")
    is_local = Path(model).is_dir()
    packages = packages_of_space(Path(model)) if is_local else SPACE_PACKAGES
    folder.mkdir(parents=True, exist_ok=True)
    name = Path(model).resolve().name if is_local else model
    if is_local:
        copy_model(Path(model), folder / "model")
    for path in SPACE_CODE:
        code = (PACKAGE / path).read_text(encoding="utf-8")
        (folder / Path(path).name).write_text(with_flat_imports(code), encoding="utf-8")
    write_examples(folder / "examples")
    app = APP.format(
        title="Instrument recognition", task=TASK, name=name, largest=LARGEST_FILE,
        model='str(HERE / "model")' if is_local else repr(model),
    )  # fmt: skip
    (folder / "app.py").write_text(app, encoding="utf-8")
    card = SPACE_CARD.format(gradio=GRADIO, name=name, models="" if is_local else f"models:\n- {model}\n")
    (folder / "README.md").write_text(card, encoding="utf-8")
    pins = shipped("requirements.txt").read_text(encoding="utf-8")
    wanted = [match[0] for match in re.finditer(r"^([\w-]+)==[\w.]+", pins, re.MULTILINE) if match[1] in packages]
    (folder / "requirements.txt").write_text("\n".join(wanted) + "\n", encoding="utf-8")


def packages_of_space(model: Path) -> tuple[str, ...]:
    """Return what a model's Space installs; UserError where it hears a part of the music that a Space cannot find."""
    try:
        separate = separation_of(json.loads((model / "config.json").read_text(encoding="utf-8")).get("separation"))
    except ValueError as error:
        raise UserError(f"{model} cannot become a Space: {error}") from error
    return SPACE_PACKAGES if separate is None else (*SPACE_PACKAGES, "librosa")


def copy_model(run: Path, folder: Path) -> None:
    """Copy what a model needs to be loaded, and nothing else of its run."""
    folder.mkdir()
    for pattern in ("config.json", "preprocessor_config.json", "model*.safetensors*", "*.py"):
        for file in run.glob(pattern):
            shutil.copyfile(file, folder / file.name)
    attach_pipeline(folder)


def with_flat_imports(code: str) -> str:
    """Return code of this repository with its modules imported from beside it, as they lie in a Space."""
    return re.sub(r"^from irmas_recipe\.[\w.]*?(\w+) import", r"from \1 import", code, flags=re.MULTILINE)
