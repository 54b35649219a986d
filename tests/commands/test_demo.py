"""`demo`: the examples, the exported Space in an empty environment, and the real page where Gradio is installed."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from huggingface_hub import SpaceCard

from irmas_dataset.errors import UserError
from irmas_recipe.commands.demo import main as demo
from irmas_recipe.commands.demo.arguments import GRADIO
from irmas_recipe.commands.demo.examples import write_examples
from irmas_recipe.commands.demo.space import PACKAGES, PAGE, export_space, modules_behind, with_flat_imports
from irmas_recipe.home import PACKAGE
from irmas_recipe.models.pipeline.attach import attach_pipeline
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from tests.browser import Browser, needs_browser
from tests.tiny import build

try:
    import gradio
except ImportError:
    gradio = None
needs_gradio = pytest.mark.skipif(gradio is None, reason=f"gradio=={GRADIO} is optional and not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    """A saved tiny AST that looks at 1 s every 0.5 s, with what else lies in a run's folder."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    model, extractor = build("ast")
    model.config.update({"window_seconds": 1.0, "hop_seconds": 0.5, "aggregation": "mean", "thresholds": [0.4] * 11})
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    attach_pipeline(folder)
    (folder / "predictions.parquet").touch()
    (folder / "trainer_state.json").touch()
    return str(folder)


@pytest.fixture(scope="module")
def space(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("spaces") / "space"
    demo.main([run, "--export_space", str(folder)])
    return folder


def test_examples_are_short_clips_that_change_half_way_and_are_the_same_every_time(tmp_path):
    first, second = write_examples(tmp_path / "first"), write_examples(tmp_path / "second")
    assert [path.name for path in first] == [path.name for path in second]
    assert first[0].name == "piano, then piano and violin.wav"
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        clip, rate = soundfile.read(one)
        assert len(clip) == 10 * rate
        assert 0.01 < np.abs(clip).max() <= 1


def test_examples_play_only_what_the_model_knows(tmp_path):
    def names(number: int, *labels: str) -> list[str]:
        return [path.stem for path in write_examples(tmp_path / str(number), labels)]

    assert names(1, "piano", "violin", "saxophone", "kora") == ["piano, then piano and violin"]
    assert names(2, "flute", "cello", "kora", "trumpet") == ["cello, then flute"]
    assert names(3, "kora", "oud") == names(4, "kora", "piano") == []


def test_an_exported_space_has_the_page_the_model_and_nothing_else_of_the_run(run, space):
    files = {path.relative_to(space).as_posix() for path in space.rglob("*") if path.is_file()}
    model = {"model/config.json", "model/model.safetensors", "model/preprocessor_config.json"}
    model |= {f"model/{path.name}" for path in Path(run).glob("*.py")}
    modules = {path.name for path in modules_behind(PAGE)} | {"view.html.jinja", "view.css", "view.js"}
    assert {"page.py", "view.py", "model/instrument_recognition.py"} <= modules | model
    assert {file for file in files if not file.startswith("examples/")} == {
        "README.md", "app.py", "requirements.txt", *modules, *model,
    }  # fmt: skip
    assert len(list((space / "examples").glob("*.wav"))) == 3


def test_the_spaces_card_and_requirements_are_what_the_hub_reads(space):
    card = SpaceCard.load(space / "README.md").data.to_dict()
    assert (card["sdk"], card["sdk_version"], card["app_file"]) == ("gradio", GRADIO, "app.py")
    assert len(card["short_description"]) <= 60
    pins = (space / "requirements.txt").read_text().splitlines()
    assert {pin.partition("==")[0] for pin in pins} == set(PACKAGES)
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", pin) for pin in pins)


def test_a_model_of_a_part_of_the_music_brings_what_finds_it_or_is_refused(run, tmp_path):
    config = json.loads(Path(run, "config.json").read_text())
    for part in ("harmonic", "solo"):
        (shutil.copytree(run, tmp_path / part) / "config.json").write_text(json.dumps(config | {"separation": part}))
    export_space(str(tmp_path / "harmonic"), tmp_path / "space")
    assert re.search(r"^librosa==", (tmp_path / "space/requirements.txt").read_text(), re.MULTILINE)
    with pytest.raises(UserError, match="cannot become a Space"):
        export_space(str(tmp_path / "solo"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_space_of_a_model_on_the_hub_names_it_instead_of_copying_it(tmp_path):
    export_space("someone/a-model", tmp_path / "space")
    assert SpaceCard.load(tmp_path / "space" / "README.md").data.to_dict()["models"] == ["someone/a-model"]
    assert "MODEL = 'someone/a-model'" in (tmp_path / "space" / "app.py").read_text()
    assert not (tmp_path / "space" / "model").exists()


def test_a_folder_with_something_in_it_is_left_alone(run, tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match="is not empty"):
        demo.main([run, "--export_space", str(tmp_path)])
    with pytest.raises(UserError, match="There is no folder"):
        demo.main([str(tmp_path / "nothing"), "--export_space", str(tmp_path / "space")])


def test_imports_are_flattened_and_others_left():
    code = "from irmas_recipe.report.style import clock\n    from irmas_recipe.home import x\nfrom .blocks import z\n"
    flat = "from style import clock\n    from home import x\nfrom blocks import z\n"
    assert with_flat_imports(code) == flat
    assert (
        with_flat_imports("from transformers.models import y\nimport torch\n")
        == "from transformers.models import y\nimport torch\n"
    )


def test_the_modules_behind_a_file_are_those_it_imports_and_those_behind_them(tmp_path):
    (tmp_path / "one.py").write_text("from .two import x\nfrom irmas_recipe.home import PACKAGE\n")
    (tmp_path / "two.py").write_text("from .one import y\nfrom .three import z\n")
    (tmp_path / "three.py").write_text("import json\n")
    (tmp_path / "four.py").write_text("")
    names = ["one.py", "two.py", "three.py"]
    assert set(modules_behind(tmp_path / "one.py")) == {*(tmp_path / name for name in names), PACKAGE / "home.py"}
    assert {path.name for path in modules_behind(PAGE)} >= {"page.py", "view.py"}


VISITOR = """
import sys
from pathlib import Path
from transformers import pipeline
from view import as_html, style_and_script, view_of
recognise = pipeline("instrument-recognition", model="model", trust_remote_code=True, device="cpu")
example = sorted(Path("examples").glob("*.wav"))[0]
result = recognise(str(example), all_labels=True, return_activity=True)
heard = [entry["label"] for entry in result["instruments"]]
view = view_of(result, heard)
Path(sys.argv[1]).write_text("".join(style_and_script()) + as_html(view, example.name, str(example)))
assert not any(name.split(".")[0] in ("irmas_recipe", "irmas_dataset") for name in sys.modules)
"""


def test_the_spaces_modules_work_without_this_repository(space, tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", VISITOR, str(tmp_path / "view.html")]
    done = subprocess.run(command, cwd=space, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '<div class="view"' in (tmp_path / "view.html").read_text(encoding="utf-8")


@pytest.mark.skipif(gradio is not None, reason="gradio is installed")
def test_a_missing_gradio_is_asked_for_in_one_sentence(run):
    with pytest.raises(UserError, match=rf"pip install gradio=={re.escape(GRADIO)}"):
        demo.main([run])


@pytest.fixture
def serve():
    """Return a function that serves the page of a run with examples, and gives its address."""
    from irmas_recipe.commands.demo.page import build_page
    from irmas_recipe.training.recogniser import load_recogniser

    pages = []

    def start(run: str, examples: list[Path], threshold: float) -> str:
        recognise = load_recogniser(run, device="cpu")
        assert isinstance(recognise, InstrumentRecognitionPipeline)
        recognise.model.config.thresholds = [threshold] * 11
        pages.append(build_page(recognise, "tiny", examples))
        return pages[-1].launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)[1]

    yield start
    for page in pages:
        page.close()


@needs_gradio
def test_the_real_page_recognises_a_file_and_refuses_another(run, serve, tmp_path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    examples = write_examples(tmp_path / "examples")
    client = Client(serve(run, examples, threshold=0.0), verbose=False)
    view = client.predict(handle_file(str(examples[0])), api_name="/recognise")
    assert view.count('class="bar"') == 11 and "No instrument" not in view
    (tmp_path / "notes.wav").write_text("no samples")
    with pytest.raises(AppError, match=r"notes\.wav"):
        client.predict(handle_file(str(tmp_path / "notes.wav")), api_name="/recognise")


@needs_gradio
def test_the_real_page_says_so_when_nothing_is_heard(run, serve, tmp_path):
    from gradio_client import Client, handle_file

    client = Client(serve(run, [], threshold=1.0), verbose=False)
    (example,) = write_examples(tmp_path, ["piano", "violin"])
    view = client.predict(handle_file(str(example)), api_name="/recognise")
    assert "No instrument was heard: none reaches its threshold, which is a confidence of 0.5. The nearest is" in view


@needs_gradio
@needs_browser
def test_an_example_is_heard_from_where_it_is_clicked_and_others_are_left_out(run, serve, tmp_path):
    strange = tmp_path / "piano, then kora.wav"
    shutil.copyfile(write_examples(tmp_path)[0], strange)
    address = serve(run, [tmp_path / "saxophone, then organ.wav", strange], threshold=0.0)
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(address, width=400)
        browser.wait_for("document.querySelectorAll('button.gallery-item').length == 1")
        browser.click("button.gallery-item")
        browser.wait_for("document.querySelectorAll('.view .bar').length == 11")
        browser.wait_for("document.querySelector('.view .bar').getBoundingClientRect().width > 200")
        browser.click(".view .bar", share=0.5)
        player = "document.querySelector('.view audio')"
        browser.wait_for(f"!{player}.paused && {player}.currentTime > 4.5")
        browser.wait_for("Number(document.querySelector('.view').style.getPropertyValue('--at')) > 0.45")
        browser.run("document.querySelector('.view .axis').focus()")
        browser.press(" ", 32, " ")
        browser.wait_for(f"{player}.paused")
        assert not browser.scrolls_sideways() and not browser.errors
    finally:
        browser.close()
