"""The page of `demo`, here and in an exported Space: drop a file or record one, hear it, see what plays when."""

import html
from pathlib import Path
from typing import Any

import gradio
from matplotlib.figure import Figure

from irmas_recipe.report.style import LABEL_COLOURS
from irmas_recipe.report.timeline import draw_timeline

TITLE = "Which instruments are playing, and when?"
SHOWN = 11  # labels, at most
STYLE = """
.scores {display: grid; grid-template-columns: max-content 1fr max-content; gap: 7px 12px; align-items: center}
.scores .track {position: relative; height: 14px; border-radius: 7px; background: var(--border-color-primary)}
.scores .bar {height: 14px; border-radius: 7px}
.scores .threshold {position: absolute; top: -3px; height: 20px; width: 2px; background: var(--body-text-color)}
.scores .unheard {opacity: .45}
.scores .score {font-variant-numeric: tabular-nums}
"""


def build_page(recognise: Any, model: str, examples: list[Path]) -> gradio.Blocks:
    """Return the page for an `instrument-recognition` pipeline; `model` is the name on it."""

    def listen(file: str | None) -> tuple[Figure | None, str]:
        if file is None:
            return None, ""
        try:
            result = recognise(file, all_labels=True, return_activity=True)
        except (OSError, ValueError) as error:
            raise gradio.Error(str(error), print_exception=False) from error
        if "warning" in result:
            gradio.Warning(result["warning"])
        return draw_timeline(file, result), scores_as_html(result, recognise.labels)

    with gradio.Blocks(title=TITLE, analytics_enabled=False) as page:
        gradio.HTML(f"<style>{STYLE}</style>")
        gradio.Markdown(f"# {TITLE}\nDrop a piece of music of any length, or record one. Model: `{model}`")
        with gradio.Row():
            with gradio.Column(scale=3):
                audio = gradio.Audio(
                    sources=["upload", "microphone"], type="filepath", label="Music", buttons=["download"]
                )
                if examples:
                    gradio.Examples([[str(example)] for example in examples], audio, label="Synthetic examples")
            with gradio.Column(scale=2):
                gradio.Markdown("**Confidence** · of music longer than 30 s: share of the time")
                scores = gradio.HTML()
        timeline = gradio.Plot(show_label=False, format="png")
        audio.change(listen, audio, [timeline, scores], api_name="recognise")
    return page


def scores_as_html(result: dict, labels: list[str]) -> str:
    """Return HTML of one bar per label, in the order of the answer; labels that are not part of it are pale."""
    rows, is_song = [], result["rule"] == "timeline"
    for entry in result["instruments"][:SHOWN]:
        place = labels.index(entry["label"])
        score = entry["share" if is_song else "confidence"]
        pale = "" if entry["score"] >= result["thresholds"][entry["label"]] else " unheard"
        bar = f'<div class="bar" style="width: {100 * score:.1f}%; background: {LABEL_COLOURS[place % len(LABEL_COLOURS)]}"></div>'
        line = "" if is_song else '<div class="threshold" style="left: 50%"></div>'
        rows.append(
            f'<div class="{pale}">{html.escape(entry["label"])}</div><div class="track{pale}">{bar}{line}</div>'
            f'<div class="score{pale}">{score:.2f}</div>'
        )
    return f'<div class="scores">{"".join(rows)}</div>'
