"""The card of a run, README.md: what the model hears, how that was measured, and where it fails."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from irmas_dataset.labels import GENRES, INSTRUMENT_CODES, readable_name
from irmas_dataset.whole_file import whole_file
from irmas_recipe.home import shipped
from irmas_recipe.report.example import EXAMPLE, EXAMPLE_INSTRUMENTS
from irmas_recipe.report.figures import headline_regime, read_results, single_threshold
from irmas_recipe.report.published import FULL_TEST_SET_CLIPS, PUBLISHED_SYSTEMS

LICENCE_OF_RELEASED_WEIGHTS = {
    "audio-spectrogram-transformer": "bsd-3-clause",
    "irmas_beats": "mit",
    "irmas_passt": "apache-2.0",
    "irmas_mobilenet": "mit",
}
"""model_type -> the licence under which the checkpoint's authors released what such a model is fine-tuned from."""

AGGREGATION_IN_WORDS = {
    "mean": "the mean of its windows' logits",
    "max": "the largest of its windows' logits",
    "mean_probability": "the mean of its windows' probabilities",
    "s1": "the mean of its windows' probabilities (S1 of Han 2017)",
    "s2": "the sum of its windows' probabilities divided by the largest class's (S2 of Han 2017)",
}
FIGURE_NAMES = {
    "micro_f1": "Micro-F1",
    "macro_f1": "Macro-F1",
    "samples_f1": "Samples-F1",
    "exact_match": "Exact match",
    "hamming": "Hamming score",
}
FIGURE_CAPTIONS = {
    "per_class_f1": "F1, precision and recall of each instrument, with the music behind them",
    "precision_recall": "Precision against recall of each instrument",
    "confusions": "Which instrument is answered in place of a missed one",
    "training_curves": "Loss, validation figures and learning rate over the epochs",
}
CITATION = shipped("CITATION.cff")
FEW_SONGS = 20  # below this the resampling of songs itself is coarse


def write_model_card(run_dir: Path, *, repo_id: str | None = None) -> Path:
    """Write README.md of a run folder from its results.json, over the one that the Trainer wrote; return its path.

    repo_id: the model's name on the Hub, for the title and the examples; the folder's own name without it.
    Raises UserError where results.json is missing.
    """
    run_dir = Path(run_dir)
    results = read_results(run_dir)
    name = (repo_id or run_dir.resolve().name).split("/")[-1]
    config = read_config(run_dir)
    licence = licence_of(results, config)
    sections = [
        f"# {name}",
        notice(results),
        introduction(results),
        results_section(results),
        per_class_section(results, run_dir),
        published_section(results),
        usage_section(repo_id or str(run_dir), config),
        limits_section(results),
        training_section(results),
        licence_section(results, licence),
        citation_section(results),
    ]
    text = "\n\n".join(section for section in sections if section)
    data = metadata(results, name, licence)
    if (run_dir / EXAMPLE).is_file():
        data["widget"] = [
            {"src": EXAMPLE, "example_title": f"{listed(EXAMPLE_INSTRUMENTS).capitalize()} (synthesised)"}
        ]
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n")
    with whole_file(run_dir / "README.md") as unfinished:  # the card says that the run is finished
        card.save(unfinished)
    return run_dir / "README.md"


def metadata(results: dict, name: str, licence: str) -> ModelCardData:
    """Return what the Hub reads: licence, base model, tags, and the headline figures as `model-index`."""
    test = results["test"]
    regime = headline_regime(test)
    dataset_name = results["dataset"]["name"]
    measured = [
        ("f1", f"micro-F1, {regime} thresholds", test[regime]["micro_f1"]),
        ("f1", f"macro-F1, {regime} thresholds", test[regime]["macro_f1"]),
        ("label_ranking_average_precision", "LRAP", test["lrap"]),
        ("mean_average_precision", "mAP", test["map"]),
    ]
    return ModelCardData(
        license=licence,
        library_name="transformers",
        pipeline_tag="audio-classification",
        base_model=base_model(results),
        datasets=["irmas"] if kind_of_data(results) in ("irmas", "part") else None,
        metrics=["f1", "label_ranking_average_precision", "mean_average_precision"],
        tags=["instrument-recognition", "music", "music-information-retrieval", "multi-label", "irmas"],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="audio-classification",
                task_name="Instrument recognition (multi-label)",
                dataset_type=re.sub(r"[^a-z0-9]+", "-", dataset_name.lower()).strip("-"),
                dataset_name=dataset_name,
                dataset_split="test",
                metric_type=metric_type,
                metric_name=metric_name,
                metric_value=value,
            )
            for metric_type, metric_name, value in measured
        ],
    )


def kind_of_data(results: dict) -> str:
    """Return what the run was measured on: "irmas", "part" (of IRMAS), "synthetic" or "own"."""
    dataset = results["dataset"]
    if dataset.get("synthetic") or dataset["name"].startswith("synthetic"):
        return "synthetic"
    if dataset["name"] == "IRMAS":
        return "irmas" if dataset["clips"]["test"] == FULL_TEST_SET_CLIPS else "part"
    return "part" if dataset["name"].startswith("incomplete IRMAS") else "own"


def base_model(results: dict) -> str | None:
    """Return the Hub id that the run started from; None from scratch or from a local folder."""
    name = results["recipe"].get("model_name_or_path") or ""
    return name if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not Path(name).exists() else None


def read_config(run_dir: Path) -> dict:
    """Return the saved model's configuration, or nothing where no model was saved."""
    path = run_dir / "config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def licence_of(results: dict, config: dict) -> str:
    """Return the licence of the weights: that of the released checkpoint they come from, else this project's."""
    if not results["recipe"].get("model_name_or_path"):
        return "apache-2.0"
    return LICENCE_OF_RELEASED_WEIGHTS.get(config.get("model_type"), "apache-2.0")


def notice(results: dict) -> str:
    """Say first of all where the figures are not those of IRMAS's test set."""
    name, clips = results["dataset"]["name"], results["dataset"]["clips"]["test"]
    return {
        "irmas": "",
        "part": f"> **Not the whole of IRMAS.** Measured on {clips:,} of its {FULL_TEST_SET_CLIPS:,} test clips ({name}): "
        "these figures do not compare with published ones.",
        "synthetic": "> **Synthetic music.** This model was trained and measured on music that a program played, not on "
        "recordings. Its figures show that the software works; they say nothing about real music and do not compare with "
        "figures published on IRMAS.",
        "own": f"> **Not IRMAS.** This model was trained and measured on another collection ({name}): its figures do not "
        "compare with figures published on IRMAS.",
    }[kind_of_data(results)]


def introduction(results: dict) -> str:
    """Say in a sentence what the model does."""
    classes = results["dataset"]["classes"]
    return (
        f"This model says which of {len(classes)} instruments are heard in a piece of music, several at once: "
        f"{listed(classes)}."
    )


def listed(codes: Sequence[str]) -> str:
    """Return "cello, clarinet and flute"."""
    names = [readable_name(code) for code in codes]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def protocol_sentence(results: dict) -> str:
    """Say in one sentence how the figures came about."""
    protocol, dataset = results["protocol"], results["dataset"]
    parts = []
    if protocol.get("window_seconds"):
        aggregation = protocol["aggregation"]
        parts += [
            f"each clip is cut into windows of {protocol['window_seconds']:g} s every {protocol['hop_seconds']:g} s",
            f"its scores are {AGGREGATION_IN_WORDS.get(aggregation, aggregation)}",
        ]
    if protocol.get("separation", "none") != "none":
        parts.insert(0, f"only the {protocol['separation']} part of the music is heard, in training too")
    if headline_regime(results["test"]) == "tuned":
        source = protocol.get("thresholds_from", "validation mixtures")
        if source == "validation mixtures":
            source = "mixtures of validation clips, which share no recording with the training clips"
        parts.append(f"the tuned thresholds, one an instrument, come from {source}")
    parts.append(
        f"the 95 % intervals come from {protocol['bootstrap_resamples']:,} resamples of whole songs, thresholds held fixed"
    )
    music = f"{dataset['clips']['test']:,} test clips of {dataset['songs']:,} songs"
    if dataset.get("test_is_held_out"):
        music += ", held out from the same collection by recording"
    return f"Measured on {music}: " + "; ".join(parts) + "."


def results_section(results: dict) -> str:
    """Return the table of the threshold regimes beside what needs no listening."""
    test, trivial = results["test"], results["trivial"]
    regimes = [regime for regime in ("tuned", "fixed", "oracle") if regime in test]
    headings = [regime if regime == "tuned" else f"{regime} {single_threshold(test[regime]):.3f}" for regime in regimes]
    rows = [["", *[f"**{headings[0]}**", *headings[1:]], "a constant answer", "every class"]]
    for name, label in FIGURE_NAMES.items():
        measured = [with_interval(test[regime], name) for regime in regimes]
        rows.append([label, *measured, f"{trivial['constant'][name]:.3f}", f"{trivial['all'][name]:.3f}"])
    constant = ", ".join(readable_name(code) for code in trivial["constant"]["classes"])
    ranking = [
        ["", "this model", "classes ranked by frequency"],
        ["LRAP", with_interval(test, "lrap"), f"{trivial['prior']['lrap']:.3f}"],
        ["mAP", with_interval(test, "map"), f"{trivial['prior']['map']:.3f}"],
    ]
    headline = "**Tuned** is the headline. " if regimes[0] == "tuned" else ""
    return "\n\n".join(
        [
            "## Results",
            protocol_sentence(results),
            markdown_table(rows),
            f"{headline}Fixed: one threshold, chosen without looking. Oracle: the threshold that is best on the test set itself, "
            "which no music heard for the first time will reach; it is here because part of the literature reports it. "
            f"A constant answer: {constant}, for every clip. Hamming score: the share of right entries, so more is better.",
            "The figures that need no threshold:",
            markdown_table(ranking),
        ]
    )


def per_class_section(results: dict, run_dir: Path) -> str:
    """Return the table of the instruments and the run's pictures."""
    test = results["test"]
    regime = headline_regime(test)
    rows = [["", "F1", "precision", "recall", "average precision", "threshold", "clips", "songs"]]
    for code, entry in test[regime]["per_class"].items():
        if entry["support"]:
            lo, hi = entry["f1_ci95"]
            measured = [
                f"{entry['f1']:.3f} [{lo:.3f}, {hi:.3f}]",
                f"{entry['precision']:.3f}",
                f"{entry['recall']:.3f}",
            ]
            measured.append(f"{test['per_class_ap'][code]:.3f}")
        else:
            measured = ["not measured", "", "", ""]
        counts = [f"{entry['threshold']:.3f}", f"{entry['support']:,}", f"{entry['songs']:,}"]
        rows.append([readable_name(code), *measured, *counts])
    pictures = [
        f"![{caption}](figures/{name}.png)"
        for name, caption in FIGURE_CAPTIONS.items()
        if (run_dir / "figures" / f"{name}.png").is_file()
    ]
    table = f"With the {regime} thresholds; clips and songs of the test set in which the instrument plays.\n\n"
    return "\n\n".join(["## Each instrument", table + markdown_table(rows, right_aligned_from=1), *pictures])


def published_section(results: dict) -> str:
    """Return the published systems with their protocols; nothing where the test set is not IRMAS's own."""
    if kind_of_data(results) != "irmas":
        return ""
    test = results["test"]
    regime = headline_regime(test)
    own = [f"{test[regime]['micro_f1']:.3f}", f"{test[regime]['macro_f1']:.3f}", f"{test['lrap']:.3f}"]
    rows = [["system", "micro-F1", "macro-F1", "LRAP", "protocol"]]
    rows.append(["**this model**", *[f"**{figure}**" for figure in own], f"as above, {regime} thresholds"])
    for system in PUBLISHED_SYSTEMS:
        figures = [system.micro_f1, system.macro_f1, system.lrap]
        rows.append(
            [
                system.name,
                *["" if figure is None else f"{figure:.3f}".removesuffix("0") for figure in figures],
                system.protocol,
            ]
        )
    return "\n\n".join(
        [
            "## Beside published systems",
            f"All on IRMAS's {FULL_TEST_SET_CLIPS:,} test clips unless the protocol says otherwise. Thresholds, windows "
            "and test clips differ between them, and some figures are quoted at second hand: read the protocols before "
            "the ranks.",
            markdown_table(rows),
        ]
    )


def usage_section(model: str, config: dict) -> str:
    """Return code to paste. `config` is the model's; with an `auto_map` its code comes with it."""
    own_code = ", trust_remote_code=True" if config.get("auto_map") else ""
    separation = config.get("separation", "none")
    unseparated = f", nor takes the {separation} part that this model is to hear" if separation != "none" else ""
    comes, imported, given = "the pipeline's code comes with the model", "", ""
    if separation in ("harmonic", "percussive"):
        comes += "; it needs librosa"
    elif separation != "none":
        comes += f", what finds the {separation} part with this project"
        imported, given = "from irmas_dataset.separation import Separation\n", f', separate=Separation("{separation}")'
    return f"""## How to use

Audio of any length, with the windows and the thresholds of this card ({comes}):

```python
{imported}from transformers import pipeline

recognise = pipeline("instrument-recognition", model="{model}", trust_remote_code=True{given})
print(recognise("song.flac"))
print(recognise("song.flac", return_timeline=True))
```

Or with transformers' own pipeline, which applies neither windows nor thresholds{unseparated}, from mono samples:

```python
import soundfile
from transformers import pipeline

samples, sampling_rate = soundfile.read("song.flac", always_2d=True)
classify = pipeline("audio-classification", model="{model}"{own_code})
print(classify({{"raw": samples.mean(axis=1), "sampling_rate": sampling_rate}}))
```"""


def limits_section(results: dict) -> str:
    """Say what the model is for and, from this run's own figures, where it fails."""
    lines = [
        "Meant for tagging, searching and studying collections of music. Not meant for transcribing notes, for telling "
        "players apart, or for deciding anything about a person.",
        f"It knows {len(results['dataset']['classes'])} classes and nothing else: another instrument is either left out "
        "or taken for one of them.",
        *failures(results),
    ]
    if set(results["dataset"]["classes"]) == set(INSTRUMENT_CODES) and kind_of_data(results) != "synthetic":
        lines.append(
            "IRMAS's labels name the predominant instruments only, and its training labels are noisy: of 297 training "
            "clips heard again by one listener, 48 % were exactly right and 14 % did not contain their stated "
            f"instrument. Its genres are {', '.join(GENRES.values())}: nothing is known of other music."
        )
    return "## Intended use and limits\n\n" + "\n".join(f"- {line}" for line in lines)


def failures(results: dict) -> list[str]:
    """Return sentences on the instruments that fail in this run, and on those that too few songs stand for."""
    test = results["test"]
    per_class = test[headline_regime(test)]["per_class"]
    measured = {code: entry for code, entry in per_class.items() if entry["support"]}
    weakest = sorted(measured, key=lambda code: measured[code]["f1"])[:3]
    low_recall = [code for code, entry in measured.items() if entry["recall"] < 0.5]
    low_precision = [code for code, entry in measured.items() if entry["precision"] < 0.5]
    few_songs = sorted((c for c in measured if measured[c]["songs"] < FEW_SONGS), key=lambda c: measured[c]["songs"])
    absent = [readable_name(code) for code in per_class if code not in measured]
    sentences = [f"Weakest here, by F1: {listing(weakest, measured, 'f1')}."]
    if low_recall:
        sentences.append(f"More often missed than found: {listing(low_recall, measured, 'recall')} (recall).")
    if low_precision:
        sentences.append(
            f"More often wrong than right when named: {listing(low_precision, measured, 'precision')} (precision)."
        )
    if few_songs and len(few_songs) == len(measured) > 3:
        fewest, most = measured[few_songs[0]]["songs"], measured[few_songs[-1]]["songs"]
        sentences.append(f"Only {fewest} to {most} test songs stand behind each instrument: all figures are uncertain.")
    elif few_songs:
        songs = ", ".join(f"{readable_name(code)} ({measured[code]['songs']})" for code in few_songs)
        sentences.append(f"Few test songs stand behind {songs}: their figures, and so macro-F1, are uncertain.")
    if absent:
        sentences.append(f"Not measured, for want of a test clip: {', '.join(absent)}.")
    return sentences


def listing(codes: list[str], per_class: dict, figure: str) -> str:
    """Return "clarinet (0.312), cello (0.401)"."""
    return ", ".join(f"{readable_name(code)} ({per_class[code][figure]:.3f})" for code in codes)


def training_section(results: dict) -> str:
    """Say what the model was trained on, how long and on which machine, and how to do it again."""
    training, dataset, recipe = results.get("train", {}), results["dataset"], results["recipe"]
    lines = []
    if training.get("epochs"):
        lines.append(start_sentence(results))
        clips = dataset["clips"]
        lines.append(
            f"{clips['train']:,} training clips and {clips['validation']:,} validation clips, {training['epochs']:g} epochs."
        )
        if extra := dataset.get("extra_train_clips"):
            folder = Path(recipe["extra_train_dir"]).name
            lines.append(f"{extra:,} of the training clips come from a folder beside the data set, `{folder}`.")
    else:
        lines.append("Not trained on this collection: the weights are those it started from.")
    if training.get("device"):
        lines.append(compute_line(training))
    versions = ", ".join(f"{name} {version}" for name, version in results.get("versions", {}).items())
    commit = f" at commit `{results['commit']}`" if results.get("commit") else ""
    lines.append(f"Made by irmas-recipe{commit}, seed {results['seed']}, with {versions}.")
    lines.append("`recipe.yaml` beside this card holds every parameter; `results.json` every figure; "
                 "`predictions.parquet` every score.")  # fmt: skip
    return "## Training\n\n" + "\n".join(f"- {line}" for line in lines)


def start_sentence(results: dict) -> str:
    """Say which weights the training started from."""
    recipe = results["recipe"]
    start, backbone = recipe.get("model_name_or_path"), recipe.get("backbone_name_or_path")
    if base_model(results):
        return f"Started from `{base_model(results)}`."
    if start:
        is_run = Path(start, "recipe.yaml").is_file()
        return f"Started from the run `{Path(start).name}`." if is_run else "Started from released weights."
    if backbone:
        name = Path(backbone).name if Path(backbone).exists() else backbone
        return f"Its image network started from `{name}`, trained on ImageNet; the rest from scratch."
    return "Trained from scratch."


def compute_line(training: dict) -> str:
    """Return device, time, speed, memory and size in one line."""
    parts = [training["device"]]
    if training.get("epochs"):
        parts.append(f"{training['seconds']:,.0f} s of training")
    if training.get("clips_per_second"):
        parts.append(f"{training['clips_per_second']:,.1f} clips a second")
    if training.get("peak_memory_bytes"):
        parts.append(f"{training['peak_memory_bytes'] / 2**30:.1f} GiB of memory at most")
    if training.get("parameters"):
        parts.append(f"{training['parameters']:,} parameters")
    hours = training.get("seconds", 0) * training.get("processes", 1) / 3600
    carbon = (
        f" That is {hours:.2g} device-hours; energy and carbon were not measured." if training.get("epochs") else ""
    )
    return "Compute: " + ", ".join(parts) + "." + carbon


def licence_section(results: dict, licence: str) -> str:
    """Say under what the weights and the music are."""
    text = f"The weights are released under `{licence}`"
    text += ", as those they come from." if results["recipe"].get("model_name_or_path") else "."
    if kind_of_data(results) in ("irmas", "part"):
        text += (
            " IRMAS's audio is under [CC BY-NC-SA 3.0](https://creativecommons.org/licenses/by-nc-sa/3.0/), for"
            " non-commercial use, and its text adds that the audio may not be redistributed or modified: none of it is"
            " in this repository. Whether a model trained on such audio may be used commercially is not settled: ask"
            " the rights holders."
        )
    return f"## Licence\n\n{text}"


def citation_section(results: dict) -> str:
    """Return BibTeX of this project, from CITATION.cff, and of the data set where it was used."""
    citation = yaml.safe_load(CITATION.read_text(encoding="utf-8"))
    version = citation["version"] + (f", commit {results['commit']}" if results.get("commit") else "")
    entries = [bibtex("software", "irmas_recipe", citation | {"version": version})]
    if kind_of_data(results) in ("irmas", "part"):
        entries.append(bibtex("inproceedings", "bosch2012comparison", citation["references"][0]))
    return "## How to cite\n\n```bibtex\n" + "\n\n".join(entries) + "\n```"


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


def with_interval(figures: dict, name: str) -> str:
    """Return "0.662 [0.640, 0.684]"."""
    lo, hi = figures["ci95"][name]
    return f"{figures[name]:.3f} [{lo:.3f}, {hi:.3f}]"


def markdown_table(rows: list[list[str]], right_aligned_from: int | None = None) -> str:
    """Return a Markdown table; the first row is its header."""
    aligned = [
        "---:" if right_aligned_from is not None and column >= right_aligned_from else "---"
        for column in range(len(rows[0]))
    ]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |" for cells in [rows[0], aligned, *rows[1:]]
    )
