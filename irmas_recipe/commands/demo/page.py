"""The page of `demo`, here and in an exported Space: drop a file or record one, hear it, see what plays when."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio

from irmas_recipe.report.view import as_html, style_and_script, view_of

TITLE = "Which instruments are playing, and when?"
COLOURS = """
.view {--ink: var(--body-text-color); --quiet: color-mix(in srgb, var(--ink) 65%, transparent);
  --blue: var(--color-accent); --track: var(--border-color-primary)}
.dark .view {color-scheme: dark}
.view audio {width: 100%; height: 40px; margin-top: 8px}
"""


def build_page(recognise: Any, model: str, examples: list[Path]) -> gradio.Blocks:
    """Return the page for an `instrument-recognition` pipeline; `model` is the name on it.

    Of the examples, which are called after what plays in them, those of other instruments than the model's are left out.
    """
    labels = recognise.labels
    style, script = style_and_script()
    examples = [example for example in examples if set(re.split(", then | and ", example.stem)) <= set(labels)]

    def listen(file: str | None) -> str:
        if file is None:
            return ""
        try:
            result = recognise(file, all_labels=True, return_activity=True)
        except (OSError, ValueError) as error:
            raise gradio.Error(str(error), print_exception=False) from error
        heard = [
            entry["label"] for entry in result["instruments"] if entry["score"] >= result["thresholds"][entry["label"]]
        ]
        return as_html(view_of(result, heard), Path(file).name, f"gradio_api/file={quote(file)}")

    with gradio.Blocks(title=TITLE, analytics_enabled=False) as page:
        gradio.HTML(f"<style>{COLOURS}{style}</style>", js_on_load=script)
        gradio.Markdown(f"# {TITLE}\nDrop a piece of music of any length, or record one. Model: `{model}`")
        audio = gradio.Audio(sources=["upload", "microphone"], type="filepath", label="Music", buttons=["download"])
        if examples:
            gradio.Examples([[str(example)] for example in examples], audio, label="Synthetic examples")
        view = gradio.HTML(apply_default_css=False)
        gradio.Markdown(
            "Click where you want to listen. On the right: how long an instrument is heard, its share of the piece, and "
            "its confidence, 0.50 at the threshold. Pale rows are heard for moments but are not part of the answer."
        )
        audio.change(listen, audio, view, api_name="recognise")
    return page
