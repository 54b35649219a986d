"""The card of a run, README.md: what the system hears, how that was measured, and where it fails.

The words are in card.md.jinja and usage.md.jinja; here are the values that they need, all from the run's own files.
"""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import jinja2
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from irmas_dataset.labels import GENRES, INSTRUMENT_CODES, readable_name
from irmas_dataset.whole_file import whole_file
from irmas_recipe.home import shipped
from irmas_recipe.report.example import EXAMPLE, EXAMPLE_INSTRUMENTS
from irmas_recipe.report.published import FULL_TEST_SET_CLIPS
from irmas_recipe.report.published_section import published_section
from irmas_recipe.report.results import FIGURES, Results, run_of
from irmas_recipe.report.text import markdown_table, with_interval
from irmas_recipe.training.released import HUB, LICENCES_ON_THE_HUB, released_as

TEMPLATE = Path(__file__).with_name("card.md.jinja")
USAGE_TEMPLATE = Path(__file__).with_name("usage.md.jinja")

AGGREGATION_IN_WORDS = {
    "mean": "the mean of its windows' logits",
    "energy": "the mean of its windows' logits, weighted by their energy",
    "max": "the largest of its windows' logits",
    "mean_probability": "the mean of its windows' probabilities",
    "s1": "the mean of its windows' probabilities (S1 of Han 2017)",
    "s2": "the sum of its windows' probabilities divided by the largest class's (S2 of Han 2017)",
}
DECISION_FIGURES = {
    "micro_f1": "Micro-F1",
    "macro_f1": "Macro-F1",
    "samples_f1": "Samples-F1",
    "exact_match": "Exact match",
    "hamming": "Hamming score",
}
CAPTIONS = {
    "feature_importance": "What the system listens to",
    "per_class_f1": "F1, precision and recall of each instrument, with the music behind them",
    "precision_recall": "Precision against recall of each instrument",
    "confusions": "Which instrument is answered in place of a missed one",
    "training_curves": "Loss, validation figures and learning rate over the epochs",
}
METRIC_TYPES = {
    "micro_f1": "f1",
    "macro_f1": "f1",
    "lrap": "label_ranking_average_precision",
    "map": "mean_average_precision",
}
PAPER_OF = {
    "audio-spectrogram-transformer": "gong2021ast",
    "irmas_beats": "chen2023beats",
    "irmas_passt": "koutini2022passt",
    "irmas_mobilenet": "schmid2023efficientat",
    "hubert": "hsu2021hubert",
    "wavlm": "chen2022wavlm",
    "whisper": "radford2023whisper",
    "wav2vec2": "baevski2020wav2vec2",
    "clap_audio_model": "wu2023clap",
}
"""The type of a pretrained model or encoder -> its paper in CITATION.cff."""
OTHER = "other"  # what the Hub calls a licence that it does not list
FEW_SONGS = 20  # with fewer, resampling songs is itself coarse


def write_card(
    run_dir: Path, *, repo_id: str | None = None, how_made: str = "", how_kept: str = "", library: str = "transformers"
) -> Path:
    """Write README.md of a run folder from its results.json and return its path.

    repo_id: the model's name on the Hub, for the title and the examples; without it the folder's own name.
    how_made, how_kept: on a system without a network: how it was made, and what it is loaded from.
    library: the library that loads the system.
    Raises UserError where results.json is missing.
    """
    run_dir = Path(run_dir)
    results, config = Results.read(run_dir), read_config(run_dir)
    name = (repo_id or run_dir.resolve().name).split("/")[-1]
    licence = licence_of(results, config)
    base_model = results.base_model or getattr(released_as(config.get("released_as")), "hub_id", None)
    data = metadata(results, name, licence, library, base_model)
    if (run_dir / EXAMPLE).is_file():
        data["widget"] = [
            {"src": EXAMPLE, "example_title": f"{listed(EXAMPLE_INSTRUMENTS).capitalize()} (synthesised)"}
        ]
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        results=results,
        dataset=results.dataset,
        clips=results.dataset["clips"],
        full_test_set=FULL_TEST_SET_CLIPS,
        instruments=listed(results.classes),
        how_made=how_made,
        measured_how=protocol_sentence(results),
        regime_table=regime_table(results),
        ranking_table=ranking_table(results),
        constant_answer=", ".join(map(readable_name, results.trivial["constant"]["classes"])),
        instrument_table=instrument_table(results),
        pictures=pictures_of(run_dir),
        published=published_section(results),
        how_kept=how_kept,
        usage=command_section(run_dir) if how_made else usage_section(repo_id or str(run_dir), config),
        limits=limits(results),
        training=[] if how_made else training_lines(results, config),
        at_commit=f" at commit `{results.commit}`" if results.commit else "",
        versions=", ".join(f"{library} {version}" for library, version in results.versions.items()),
        licence=licence_sentence(results, licence, base_model),
        citation=citation(results, config),
    )
    card.content = re.sub(r"\n{3,}", "\n\n", card.content).rstrip() + "\n"
    with whole_file(run_dir / "README.md") as unfinished:  # the card says that the run is finished
        card.save(unfinished)
    return run_dir / "README.md"


def metadata(results: Results, name: str, licence: str, library: str, base_model: str | None) -> ModelCardData:
    """Return what the Hub reads: licence, base model, tags, and the headline figures as `model-index`.

    base_model: an id on the Hub, which accepts no other address.
    """
    dataset_name = results.dataset["name"]
    by_threshold = {"micro_f1", "macro_f1"}
    return ModelCardData(
        license=licence,
        license_name="that-of-the-base-model" if licence == OTHER and base_model else None,
        license_link=HUB + base_model if licence == OTHER and base_model else None,
        library_name=library,
        pipeline_tag="audio-classification",
        base_model=base_model,
        datasets=datasets_of(results),
        metrics=["f1", "label_ranking_average_precision", "mean_average_precision"],
        tags=["instrument-recognition", "music", "music-information-retrieval", "multi-label", *of_irmas(results)],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="audio-classification",
                task_name="Instrument recognition (multi-label)",
                dataset_type=results.dataset.get("hub_id")
                or re.sub(r"[^a-z0-9]+", "-", dataset_name.lower()).strip("-"),
                dataset_name=dataset_name,
                dataset_split="test",
                metric_type=METRIC_TYPES[figure],
                metric_name=FIGURES[figure] + (f", {results.regime} thresholds" if figure in by_threshold else ""),
                metric_value=value,
            )
            for figure, value in results.headline.items()
        ],
    )


def datasets_of(results: Results) -> list[str] | None:
    """Return the data sets that the Hub links to: the id of one that came from there, else a name that is known."""
    if hub_id := results.dataset.get("hub_id"):
        return [hub_id]
    if results.music == "openmic":
        return ["openmic-2018"]
    return of_irmas(results) or None


def of_irmas(results: Results) -> list[str]:
    """Return IRMAS's name for the Hub where a model was trained on it or a part of it, and nothing else."""
    return ["irmas"] if results.music in ("irmas", "part") else []


def read_config(run_dir: Path) -> dict:
    """Return the saved model's configuration, or an empty one where no model was saved."""
    path = run_dir / "config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def licence_of(results: Results, config: dict) -> str:
    """Return the licence of the weights: that of the checkpoint they come from, "other" where it is not known here.

    Weights that come from no checkpoint have this project's.
    """
    if not results.started_from:
        return "apache-2.0"
    if released := released_as(config.get("released_as")):
        return released.licence
    return LICENCES_ON_THE_HUB.get(next(iter(results.started_from.values())), OTHER)


def licence_sentence(results: Results, licence: str, base_model: str | None) -> str:
    """Return under which licence the weights are."""
    if licence != OTHER:
        alike = ", like those they come from" if results.recipe.get("model_name_or_path") else ""
        return f"The weights are released under `{licence}`{alike}."
    if base_model:
        return f"The weights are under the licence of `{base_model}`, which they started from: [its page]({HUB}{base_model}) says which."
    return "The weights are under the licence of the checkpoint that they started from, which is not known here."


def listed(codes: Sequence[str]) -> str:
    """Return "cello, clarinet and flute"."""
    names = [readable_name(code) for code in codes]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def protocol_sentence(results: Results) -> str:
    """Return one sentence on how the figures were measured."""
    protocol, dataset, parts = results.protocol, results.dataset, []
    if protocol.get("separation", "none") != "none":
        parts.append(f"only the {protocol['separation']} part of the music is heard, in training too")
    if protocol.get("window_seconds"):
        aggregation = protocol["aggregation"]
        parts += [
            f"each clip is cut into windows of {protocol['window_seconds']:g} s every {protocol['hop_seconds']:g} s",
            f"its scores are {AGGREGATION_IN_WORDS.get(aggregation, aggregation)}",
        ]
    if results.regime == "tuned":
        source = protocol.get("thresholds_from", "validation mixtures")
        if source == "validation mixtures":
            source = "mixtures of validation clips, which share no recording with the training clips"
        parts.append(f"the tuned thresholds, one per instrument, come from {source}")
    parts.append(
        f"the 95 % intervals come from {protocol['bootstrap_resamples']:,} resamples of whole songs, thresholds held fixed"
    )
    music = f"{dataset['clips']['test']:,} test clips of {dataset['songs']:,} songs"
    if dataset.get("test_is_held_out"):
        music += ", held out from the same collection by recording"
    return f"Measured on {music}: " + "; ".join(parts) + "."


def regime_table(results: Results) -> str:
    """Return the threshold regimes beside the trivial answers."""
    test, trivial = results.test, results.trivial
    regimes = [regime for regime in ("tuned", "fixed", "oracle") if regime in test]
    headings = [name if name == "tuned" else f"{name} {results.single_threshold(name):.3f}" for name in regimes]
    rows = [["", f"**{headings[0]}**", *headings[1:], "a constant answer", "every class"]]
    for figure, name in DECISION_FIGURES.items():
        measured = [with_interval(test[regime][figure], test[regime]["ci95"][figure]) for regime in regimes]
        rows.append([name, *measured, f"{trivial['constant'][figure]:.3f}", f"{trivial['all'][figure]:.3f}"])
    return markdown_table(rows)


def ranking_table(results: Results) -> str:
    """Return the figures that need no threshold beside those of a ranking by frequency."""
    rows = [["", "this model", "classes ranked by frequency"]]
    for figure in ("lrap", "map"):
        measured = with_interval(results.test[figure], results.test["ci95"][figure])
        rows.append([FIGURES[figure], measured, f"{results.trivial['prior'][figure]:.3f}"])
    return markdown_table(rows)


def instrument_table(results: Results) -> str:
    """Return a row per instrument: figures, threshold, and the music behind them."""
    partly = results.is_partly_known
    rows = [["", "F1", "precision", "recall", "average precision", "threshold", "clips", "songs", *["judged"] * partly]]
    for code, entry in results.per_class.items():
        measured = ["not measured", "", "", ""]
        if entry["support"]:
            others = (entry["precision"], entry["recall"], results.test["per_class_ap"][code])
            measured = [with_interval(entry["f1"], entry["f1_ci95"]), *(f"{figure:.3f}" for figure in others)]
        counts = [f"{entry['threshold']:.3f}", f"{entry['support']:,}", f"{entry['songs']:,}"]
        judged = [f"{entry['known']:,}"] if partly else []
        rows.append([readable_name(code), *measured, *counts, *judged])
    return markdown_table(rows, right_aligned_from=1)


def pictures_of(run_dir: Path) -> list[tuple[str, str]]:
    """Return caption and path of the run's pictures, as the card shows them."""
    files = {f"figures/{name}.png": caption for name, caption in CAPTIONS.items()}
    return [(caption, file) for file, caption in files.items() if (run_dir / file).is_file()]


def usage_section(model: str, config: dict) -> str:
    """Return code to paste. `config` is the model's; with an `auto_map` its code comes with it."""
    separation = config.get("separation", "none")
    separate = separation not in ("none", "harmonic", "percussive")  # those two the pipeline finds itself
    needs = {"harmonic": "; it needs librosa", "percussive": "; it needs librosa", "none": ""}.get(
        separation, f", and what finds the {separation} part with this project"
    )
    return jinja2.Template(USAGE_TEMPLATE.read_text(encoding="utf-8")).render(
        model=model, separation=separation, separate=separate, needs=needs, own_code=bool(config.get("auto_map"))
    )


def command_section(run_dir: Path) -> str:
    """Return the command that uses a system without a network, which only this project loads."""
    return (
        "## How to use\n\nAudio of any length, with the run's windows and thresholds, by this project's command:\n\n"
        f"```bash\nirmas predict {shlex.quote(str(run_dir))} song.mp3\n```"
    )


def limits(results: Results) -> list[str]:
    """Return sentences on where the system fails, from this run's own figures, and on what IRMAS's labels are worth."""
    sentences = failures(results)
    if set(results.classes) == set(INSTRUMENT_CODES) and results.music != "synthetic":
        sentences.append(
            "IRMAS's labels name the predominant instruments only, and its training labels are noisy: of 297 training "
            "clips heard again by one listener, 48 % were exactly right and 14 % did not contain their stated "
            f"instrument. Its genres are {', '.join(GENRES.values())}: nothing is known about other music."
        )
    return sentences


def failures(results: Results) -> list[str]:
    """Return sentences on the instruments that fail in this run, and on those with too few songs behind them."""
    per_class = results.per_class
    measured = {code: entry for code, entry in per_class.items() if entry["support"]}
    weakest = [code for code in sorted(measured, key=lambda code: measured[code]["f1"]) if measured[code]["f1"] < 1][:3]
    low_recall = [code for code, entry in measured.items() if entry["recall"] < 0.5]
    low_precision = [code for code, entry in measured.items() if entry["precision"] < 0.5]
    sentences = [f"Weakest here, by F1: {with_figures(weakest, measured, 'f1')}."] if weakest else []
    if low_recall:
        sentences.append(f"More often missed than found: {with_figures(low_recall, measured, 'recall')} (recall).")
    if low_precision:
        names = with_figures(low_precision, measured, "precision")
        sentences.append(f"More often wrong than right when named: {names} (precision).")
    sentences += few_songs(measured)
    if absent := [readable_name(code) for code in per_class if code not in measured]:
        sentences.append(f"Not measured, because no test clip has it: {', '.join(absent)}.")
    return sentences


def few_songs(measured: dict[str, dict]) -> list[str]:
    """Return a sentence where few test songs stand behind some instruments, or behind all."""
    few = sorted((c for c in measured if measured[c]["songs"] < FEW_SONGS), key=lambda c: measured[c]["songs"])
    if few and len(few) == len(measured) > 3:
        fewest, most = measured[few[0]]["songs"], measured[few[-1]]["songs"]
        return [f"Only {fewest} to {most} test songs stand behind each instrument: all figures are uncertain."]
    if few:
        songs = ", ".join(f"{readable_name(code)} ({measured[code]['songs']})" for code in few)
        return [f"Few test songs stand behind {songs}: their figures, and so macro-F1, are uncertain."]
    return []


def with_figures(codes: list[str], per_class: dict, figure: str) -> str:
    """Return "clarinet (0.312), cello (0.401)"."""
    return ", ".join(f"{readable_name(code)} ({per_class[code][figure]:.3f})" for code in codes)


def training_lines(results: Results, config: dict) -> list[str]:
    """Return what the model was trained on, for how long and on which machine."""
    train, dataset, lines = results.train, results.dataset, []
    if train.get("epochs"):
        clips = dataset["clips"]
        lines.append(start_sentence(results, config))
        lines.append(
            f"{clips['train']:,} training clips and {clips['validation']:,} validation clips, {train['epochs']:g} epochs."
        )
        if extra := dataset.get("extra_train_clips"):
            folder = Path(results.recipe["extra_train_dir"]).name
            lines.append(f"{extra:,} of the training clips come from a folder beside the data set, `{folder}`.")
    elif soup := results.recipe.get("soup"):
        names = listed([run_name(run) for run in (results.recipe["model_name_or_path"], *soup)])
        lines.append(f"Not trained: its weights are the mean of those of {names}.")
    else:
        lines += [started_from(results, config)] if results.recipe.get("model_name_or_path") else []
        lines.append("Not trained on this collection: the weights are those it started from.")
    if train.get("device"):
        lines.append(compute_line(train))
    return lines


def start_sentence(results: Results, config: dict) -> str:
    """Return which weights the training started from, and with which runs' they were averaged in the end."""
    started, soup = started_from(results, config), results.recipe.get("soup") or []
    if not soup:
        return started
    return f"{started} In the end its weights were averaged with those of {listed([run_name(run) for run in soup])}."


def run_name(run: str) -> str:
    """Return a run's name as the card writes it."""
    return f"`{Path(run).name}`"


def started_from(results: Results, config: dict) -> str:
    """Return which weights the training started from."""
    start, backbone = results.recipe.get("model_name_or_path"), results.recipe.get("backbone_name_or_path")
    origin = origin_in_words(results.base_model, config.get("released_as"))
    if start and ((run := run_of(start)) / "recipe.yaml").is_file():
        which = "" if run == Path(start) else f"`{Path(start).name}` of "
        return f"Started from {which}the run `{run.name}`{f', which started from {origin}' if origin else ''}."
    if start:
        return f"Started from {origin or 'released weights'}."
    if backbone:
        name = Path(backbone).name if Path(backbone).exists() else backbone
        return f"Its image network started from `{name}`, trained on ImageNet; the rest from scratch."
    return "Trained from scratch."


def origin_in_words(base_model: str | None, file_name: str | None) -> str:
    """Return which weights a model comes from: a released file with its address, an id on the Hub, or nothing."""
    if released := released_as(file_name):
        return f"[`{file_name}`]({released.addresses[0]}) (`{released.path}`: {released.trained_on}; licence `{released.licence}`)"
    return f"`{base_model or file_name}`" if base_model or file_name else ""


def compute_line(train: dict) -> str:
    """Return device, time, speed, memory and size in one line."""
    parts = [train["device"]]
    if train.get("epochs"):
        parts.append(f"{train['seconds']:,.0f} s of training")
    if train.get("clips_per_second"):
        parts.append(f"{train['clips_per_second']:,.1f} clips per second")
    if train.get("peak_memory_bytes"):
        parts.append(f"{train['peak_memory_bytes'] / 2**30:.1f} GiB of memory at most")
    if train.get("parameters"):
        parts.append(f"{train['parameters']:,} parameters")
    line = "Compute: " + ", ".join(parts) + "."
    if train.get("epochs"):
        hours = train.get("seconds", 0) * train.get("processes", 1) / 3600
        line += f" That is {hours:.2g} device-hours; energy and carbon were not measured."
    return line


def citation(results: Results, config: dict) -> str:
    """Return BibTeX from CITATION.cff: of this project, of IRMAS where it was used, and of the model it started from."""
    own = yaml.safe_load(shipped("CITATION.cff").read_text(encoding="utf-8"))
    version = own["version"] + (f", commit {results.commit}" if results.commit else "")
    entries = [bibtex("software", "irmas_recipe", own | {"version": version})]
    of_music = {"irmas": ["bosch2012comparison"], "part": ["bosch2012comparison"], "openmic": ["humphrey2018openmic"]}
    cited = list(of_music.get(results.music, ()))
    if results.recipe.get("model_name_or_path"):
        released = released_as(config.get("released_as"))
        model_type = config.get("encoder", config).get("model_type")
        cited.append(released.citation if released else PAPER_OF.get(model_type))
    papers = {entry["abbreviation"]: entry for entry in own["references"]}
    entries += [bibtex("inproceedings", key, papers[key]) for key in cited if key]
    return "\n\n".join(entries)


def bibtex(kind: str, key: str, entry: dict) -> str:
    """Return an entry of CITATION.cff as BibTeX."""
    authors = [
        author.get("name") or f"{author['family-names']}, {author['given-names']}" for author in entry["authors"]
    ]
    fields = {
        "title": entry["title"],
        "author": " and ".join(f"{{{name}}}" if "," not in name else name for name in authors),
        "booktitle": entry.get("collection-title"),
        "pages": f"{entry['start']}--{entry['end']}" if "start" in entry else None,
        "year": entry.get("year") or entry["date-released"].year,
        "version": entry.get("version"),
        "url": entry.get("repository-code") or entry.get("url"),
        "doi": entry.get("doi"),
    }
    lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
    return f"@{kind}{{{key},\n" + ",\n".join(lines) + "\n}"
