"""The card: metadata that the Hub can read, and every figure as in results.json."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from huggingface_hub import ModelCard, metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results

from irmas_dataset.errors import UserError
from irmas_dataset.labels import INSTRUMENT_NAMES
from irmas_recipe.report.card import PAPER_OF, usage_section, write_card
from irmas_recipe.report.example import write_example
from irmas_recipe.report.figures import draw_figures
from irmas_recipe.report.published import FULL_TEST_SET_CLIPS, OPENMIC_SYSTEMS, PUBLISHED_SYSTEMS
from irmas_recipe.report.results import Results
from irmas_recipe.report.text import with_interval
from irmas_recipe.training.released import RELEASED
from tests.report.example_run import make_run, read_results


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run measured on as many test clips as IRMAS has, with its card."""
    run_dir = make_run(tmp_path_factory.mktemp("run") / "ast-finetune", num_clips=FULL_TEST_SET_CLIPS, num_songs=208)
    (run_dir / "README.md").write_text("the Trainer's own card")
    draw_figures(run_dir)
    write_card(run_dir, repo_id="someone/ast-irmas")
    return run_dir


def card_of(folder, **options) -> str:
    run_options = {"num_clips": 60, "resamples": 10, "num_songs": 60} | options
    return write_card(make_run(folder, **run_options)).read_text(encoding="utf-8")


def tables(card: str) -> list[list[list[str]]]:
    """Return the card's Markdown tables as rows of cells, without bold marks and rules."""
    found = re.findall(r"(?:^\|.*\|$\n?)+", card, flags=re.MULTILINE)
    rows = [[line.strip("|").replace("**", "").split(" | ") for line in table.splitlines()] for table in found]
    return [[[cell.strip() for cell in row] for row in table if "---" not in row[-1]] for table in rows]


def test_the_metadata_is_what_the_hub_reads(run_dir):
    data = metadata_load(run_dir / "README.md")
    assert data["license"] == "bsd-3-clause"
    assert data["base_model"] == "MIT/ast-finetuned-audioset-10-10-0.4593"
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "audio-classification"
    assert ModelCard.load(run_dir / "README.md").data.to_dict()["model-index"] == data["model-index"]


def test_the_model_index_holds_the_headline_figures_exactly(run_dir):
    test = read_results(run_dir)["test"]
    name, eval_results = model_index_to_eval_results(metadata_load(run_dir / "README.md")["model-index"])
    assert name == "ast-irmas"
    assert {result.metric_name: result.metric_value for result in eval_results} == {
        "micro-F1, tuned thresholds": test["tuned"]["micro_f1"],
        "macro-F1, tuned thresholds": test["tuned"]["macro_f1"],
        "LRAP": test["lrap"],
        "mAP": test["map"],
    }
    assert {(result.dataset_name, result.dataset_type, result.dataset_split) for result in eval_results} == {
        ("IRMAS", "irmas", "test")
    }


def test_the_table_of_regimes_equals_the_results(run_dir):
    results = read_results(run_dir)
    test, trivial = results["test"], results["trivial"]
    by_regime, ranking = tables((run_dir / "README.md").read_text())[:2]
    assert by_regime[0][1:4] == [
        "tuned",
        "fixed 0.500",
        f"oracle {test['oracle']['per_class']['cel']['threshold']:.3f}",
    ]
    names = ["micro_f1", "macro_f1", "samples_f1", "exact_match", "hamming"]
    for row, name in zip(by_regime[1:], names, strict=True):
        measured = [
            with_interval(test[regime][name], test[regime]["ci95"][name]) for regime in ("tuned", "fixed", "oracle")
        ]
        assert row[1:] == [*measured, f"{trivial['constant'][name]:.3f}", f"{trivial['all'][name]:.3f}"]
    assert [row[1:] for row in ranking[1:]] == [
        [with_interval(test[name], test["ci95"][name]), f"{trivial['prior'][name]:.3f}"] for name in ("lrap", "map")
    ]


def test_the_table_of_instruments_equals_the_results(run_dir):
    test = read_results(run_dir)["test"]
    rows = tables((run_dir / "README.md").read_text())[2][1:]
    for row, (code, entry) in zip(rows, test["tuned"]["per_class"].items(), strict=True):
        assert row == [
            INSTRUMENT_NAMES[code],
            with_interval(entry["f1"], entry["f1_ci95"]),
            f"{entry['precision']:.3f}",
            f"{entry['recall']:.3f}",
            f"{test['per_class_ap'][code]:.3f}",
            f"{entry['threshold']:.3f}",
            f"{entry['support']:,}",
            f"{entry['songs']:,}",
        ]


def test_published_systems_stand_with_their_protocols(run_dir):
    test = read_results(run_dir)["test"]
    rows = tables((run_dir / "README.md").read_text())[3]
    assert rows[1][1:4] == [f"{test['tuned'][name]:.3f}" for name in ("micro_f1", "macro_f1")] + [f"{test['lrap']:.3f}"]
    assert len(rows) == 2 + len(PUBLISHED_SYSTEMS)
    for row, system in zip(rows[2:], PUBLISHED_SYSTEMS, strict=True):
        assert row[0] == system.name
        assert [float(cell) if cell else None for cell in row[1:4]] == [system.micro_f1, system.macro_f1, system.lrap]
        assert row[4] == system.protocol != ""


def test_every_figure_in_the_prose_is_in_the_results(run_dir):
    """Numbers with three decimals outside tables and code are figures of this run."""
    card = (run_dir / "README.md").read_text()
    prose = [line for line in card.split("---\n", 2)[2].splitlines() if not line.startswith("|")]
    shown = set(re.findall(r"\b\d\.\d{3}\b", "\n".join(prose)))
    per_class = read_results(run_dir)["test"]["tuned"]["per_class"].values()
    assert shown
    assert shown <= {f"{entry[name]:.3f}" for entry in per_class for name in ("f1", "precision", "recall")}


def test_the_pictures_are_there(run_dir):
    pictures = re.findall(r"!\[.+\]\((.+)\)", (run_dir / "README.md").read_text())
    assert len(pictures) == 4
    assert all((run_dir / picture).is_file() for picture in pictures)


def test_limits_are_computed_from_the_run(run_dir):
    card = (run_dir / "README.md").read_text()
    per_class = read_results(run_dir)["test"]["tuned"]["per_class"]
    weakest = sorted(per_class, key=lambda code: per_class[code]["f1"])[:3]
    listed = ", ".join(f"{INSTRUMENT_NAMES[code]} ({per_class[code]['f1']:.3f})" for code in weakest)
    assert f"Weakest here, by F1: {listed}." in card


def test_few_songs_behind_an_instrument_are_said(tmp_path):
    run_dir = make_run(tmp_path)
    results = read_results(run_dir)
    for code, entry in results["test"]["tuned"]["per_class"].items():
        entry["songs"] = {"cla": 8, "cel": 14}.get(code, 100)
    (run_dir / "results.json").write_text(json.dumps(results))
    assert "Few test songs stand behind clarinet (8), cello (14)" in write_card(run_dir).read_text()


@pytest.mark.filterwarnings("ignore:No clip carries")
@pytest.mark.parametrize(
    ("dataset", "opening"),
    [
        ({"name": "synthetic, IRMAS-shaped"}, "> **Synthetic music.**"),
        ({"name": "IRMAS-shaped folder", "synthetic": True}, "> **Synthetic music.**"),
        ({"name": "synthetic-mixes/of-recordings"}, "> **Not IRMAS.**"),
        ({"name": "own folder brass", "test_is_held_out": True}, "> **Not IRMAS.**"),
        ({"name": "incomplete IRMAS (10 of 6705 training excerpts)"}, "> **Not the whole of IRMAS.**"),
        ({"name": "IRMAS"}, "> **Not the whole of IRMAS.**"),  # with 60 test clips
    ],
)
def test_a_card_of_other_music_says_so_first_and_compares_with_nothing(tmp_path, dataset, opening):
    card = card_of(tmp_path, dataset=dataset)
    first_lines = card.split("---\n", 2)[2].strip().splitlines()[:3]
    assert first_lines[2].startswith(opening)
    assert "Beside published systems" not in card
    assert "Bosch 2012" not in card
    of_irmas = "IRMAS" in dataset["name"] and "Not the whole" in opening
    assert ("CC BY-NC-SA 3.0" in card) == of_irmas
    data = metadata_load(tmp_path / "README.md")
    assert ("irmas" in data["tags"], data.get("datasets")) == (of_irmas, ["irmas"] if of_irmas else None)
    assert ("held out from the same collection" in card) == bool(dataset.get("test_is_held_out"))


def test_a_card_on_openmic_names_it_and_its_published_systems(tmp_path):
    card = card_of(tmp_path / "run", dataset={"name": "OpenMIC-2018"})
    assert "> **" not in card and "humphrey2018openmic" in card and "bosch" not in card
    assert metadata_load(tmp_path / "run/README.md")["datasets"] == ["openmic-2018"]
    rows = tables(card[card.index("Beside published systems") :])[0]
    assert [row[0] for row in rows[2:]] == [system.name for system in OPENMIC_SYSTEMS]
    assert float(rows[1][1]) == pytest.approx(read_results(tmp_path / "run")["test"]["map"], abs=5e-4)


def test_a_card_names_the_data_set_of_the_hub(tmp_path):
    card = card_of(tmp_path / "run", dataset={"name": "someone/music", "hub_id": "someone/music"})
    data = metadata_load(tmp_path / "run/README.md")
    assert data["datasets"] == ["someone/music"] and "another collection (someone/music)" in card
    assert data["model-index"][0]["results"][0]["dataset"] == {
        "name": "someone/music", "type": "someone/music", "split": "test"
    }  # fmt: skip


def test_a_card_of_the_whole_of_irmas_needs_no_warning(run_dir):
    assert "\n> " not in (run_dir / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:No clip carries")
@pytest.mark.parametrize(
    ("recipe", "config", "licence", "base"),
    [
        ({"model_name_or_path": None}, {"model_type": "irmas_cnn"}, "apache-2.0", None),
        ({"model_name_or_path": "/weights/beats"}, {"model_type": "irmas_beats"}, "other", None),
        ({"model_name_or_path": "someone/passt"}, {"model_type": "irmas_passt"}, "other", "someone/passt"),
        ({"model_name_or_path": "m-a-p/MERT-v1-95M"}, {"model_type": "irmas_encoder"}, "other", "m-a-p/MERT-v1-95M"),
        (
            {"model_name_or_path": "microsoft/wavlm-base-plus"},
            {"model_type": "wavlm"},
            "cc-by-sa-3.0",
            "microsoft/wavlm-base-plus",
        ),
        (
            {"model_name_or_path": None, "backbone_name_or_path": "microsoft/swin-tiny-patch4-window7-224"},
            {"model_type": "irmas_crnn"},
            "apache-2.0",
            None,
        ),
        (
            {"model_name_or_path": None, "backbone_name_or_path": "someone/swin"},
            {"model_type": "irmas_crnn"},
            "other",
            None,
        ),
    ],
)
def test_the_licence_is_that_of_the_weights_it_comes_from(tmp_path, recipe, config, licence, base):
    run_dir = make_run(tmp_path, recipe=recipe, num_clips=60, resamples=10)
    (run_dir / "config.json").write_text(json.dumps(config))
    data = metadata_load(write_card(run_dir))
    card = (run_dir / "README.md").read_text()
    assert data["license"] == licence
    assert data.get("base_model") == base
    assert "/weights/" not in card
    address = f"https://huggingface.co/{base}" if licence == "other" and base else None
    assert data.get("license_link") == address and ("license_name" in data) == bool(address)
    assert (f"The weights are released under `{licence}`" in card) == (licence != "other")
    assert ("under the licence of" in card) == (licence == "other") and (
        not address or f"[its page]({address})" in card
    )


@pytest.mark.filterwarnings("ignore:No clip carries")
def test_a_run_that_starts_from_a_run_has_its_licence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"num_clips": 60, "resamples": 10}
    for name, start, licence in (("scratch", None, "apache-2.0"), ("mert", "m-a-p/MERT-v1-95M", "other")):
        make_run(tmp_path / name, recipe={"model_name_or_path": start}, **options)
        again = make_run(tmp_path / f"{name} again", recipe={"model_name_or_path": name}, **options)
        assert metadata_load(write_card(again))["license"] == licence


@pytest.mark.filterwarnings("ignore:No clip carries")
def test_what_a_run_comes_from_outlives_the_runs_behind_it(tmp_path, monkeypatch):
    """Two runs take turns: `first`, `second` from `first`, and `first` made again from `second`."""
    monkeypatch.chdir(tmp_path)
    clips = {"labels": np.eye(11, dtype=int), "scores": np.eye(11), "songs": list(range(11)), "thresholds": None}
    for weights, licence, base in (("someone/ast", "other", "someone/ast"), (None, "apache-2.0", None)):
        for name, start in (("first", weights), ("second", "first"), ("first", "second")):
            run = make_run(tmp_path / name, num_clips=60, resamples=10)
            like, recipe = Results.read(run), {"model_name_or_path": start}
            (run / "results.json").unlink()  # the run that it replaces
            Results.measure(recipe=recipe, seed=0, dataset=like.dataset, protocol=like.protocol, **clips).write(run)
        for name in ("first", "second"):
            card = metadata_load(write_card(Path(name)))
            assert card["license"] == licence and card.get("base_model") == base


@pytest.mark.filterwarnings("ignore:No clip carries")
def test_the_card_names_and_cites_what_a_run_started_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"num_clips": 60, "resamples": 10}
    (tmp_path / "checkpoints/beats").mkdir(parents=True)
    beats = make_run(tmp_path / "beats", recipe={"model_name_or_path": "checkpoints/beats"}, **options)
    (beats / "config.json").write_text(json.dumps({"model_type": "irmas_beats", "released_as": "BEATs.pt"}))
    card = write_card(beats).read_text()
    assert "Started from `BEATs.pt`." in card and "{chen2023beats," in card and "gong2021ast" not in card
    first = make_run(tmp_path / "first", recipe={"model_name_or_path": "someone/ast"}, **options)
    (first / "recipe.yaml").touch()
    second = make_run(tmp_path / "second", recipe={"model_name_or_path": "first"}, **options)
    (second / "config.json").write_text(json.dumps({"model_type": "audio-spectrogram-transformer"}))
    card = write_card(second)
    assert metadata_load(card)["base_model"] == "someone/ast"
    assert (
        "the run `first`, which started from `someone/ast`" in card.read_text() and "{gong2021ast," in card.read_text()
    )
    (tmp_path / "first/checkpoint-8").mkdir()
    (tmp_path / "first/checkpoint-8/trainer_state.json").touch()
    third = write_card(make_run(tmp_path / "third", recipe={"model_name_or_path": "first/checkpoint-8"}, **options))
    assert "Started from `checkpoint-8` of the run `first`, which started from `someone/ast`." in third.read_text()
    assert metadata_load(third)["base_model"] == "someone/ast"
    scratch = write_card(make_run(tmp_path / "scratch", recipe={"model_name_or_path": None}, **options)).read_text()
    assert "Trained from scratch." in scratch and "gong2021ast" not in scratch


@pytest.mark.filterwarnings("ignore:No clip carries")
@pytest.mark.parametrize(
    ("name", "base", "licence", "paper"),
    [
        ("mn10", None, "mit", "schmid2023efficientat"),  # on GitHub alone, and the Hub takes no other base than its own
        ("passt-openmic", None, "apache-2.0", "koutini2022passt"),
        ("beats-iter3plus", "lpepino/beats_ckpts", "mit", "chen2023beats"),
    ],
)
def test_the_card_says_which_released_checkpoint_a_run_comes_from(tmp_path, monkeypatch, name, base, licence, paper):
    monkeypatch.chdir(tmp_path)
    options, released = {"num_clips": 60, "resamples": 10}, RELEASED[name]
    config = {"model_type": f"irmas_{released.architecture}", "released_as": released.file_name}
    for run, start in (("first", released.path), ("second", "first")):
        run_dir = make_run(tmp_path / run, recipe={"model_name_or_path": start}, **options)
        (run_dir / "config.json").write_text(json.dumps(config))
        (run_dir / "recipe.yaml").touch()
        card, text = metadata_load(write_card(run_dir)), (run_dir / "README.md").read_text()
        assert card.get("base_model") == base and card["license"] == licence
        assert f"tarted from [`{released.file_name}`]({released.addresses[0]})" in text
        assert released.path in text and f"{{{paper}," in text


@pytest.mark.filterwarnings("ignore:No clip carries")
def test_a_folder_as_base_model_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    run_dir = make_run(tmp_path / "run", recipe={"model_name_or_path": "runs/first"}, num_clips=60, resamples=10)
    assert "base_model" not in metadata_load(write_card(run_dir))
    (tmp_path / "runs" / "first").rmdir()
    assert "base_model" not in metadata_load(write_card(run_dir))


@pytest.mark.filterwarnings("ignore:No clip carries")
def test_own_code_is_asked_for_only_where_the_model_has_some(tmp_path):
    run_dir = make_run(tmp_path, num_clips=60, resamples=10)
    plain = 'pipeline("audio-classification", model='
    line = next(line for line in write_card(run_dir).read_text().splitlines() if plain in line)
    assert "trust_remote_code" not in line
    (run_dir / "config.json").write_text(json.dumps({"model_type": "irmas_cnn", "auto_map": {"AutoConfig": "x.X"}}))
    line = next(line for line in write_card(run_dir).read_text().splitlines() if plain in line)
    assert "trust_remote_code=True" in line


@pytest.mark.filterwarnings("ignore:No clip carries")
def test_a_run_without_training_and_tuning_has_a_card(tmp_path):
    card = card_of(tmp_path, trained=False, tuned=False)
    assert "Not trained on this collection" in card
    assert "of training" not in card
    assert "| **fixed 0.500** |" in card
    assert "tuned thresholds" not in card


@pytest.mark.filterwarnings("ignore:No clip carries")
def test_the_card_of_a_model_that_was_only_measured_names_its_weights(tmp_path):
    released = RELEASED["mn04"]
    run = make_run(tmp_path, num_clips=60, resamples=10, trained=False, recipe={"model_name_or_path": released.path})
    (run / "config.json").write_text(json.dumps({"model_type": "irmas_mobilenet", "released_as": released.file_name}))
    card = write_card(run).read_text()
    assert f"Started from [`{released.file_name}`]" in card and "Not trained on this collection" in card


def test_the_compute_line(run_dir):
    assert (
        "Compute: NVIDIA A100-SXM4-40GB, 1,834 s of training, 61.3 clips per second, 9.0 GiB of memory at most, "
        "86,192,651 parameters." in (run_dir / "README.md").read_text()
    )


def test_an_instrument_that_was_not_measured_is_not_given_a_figure(tmp_path):
    with pytest.warns(UserWarning, match="No clip carries harp"):
        card = card_of(
            tmp_path, classes=["a|b", "c", "harp"], frequencies=(0.5, 0.9, 0.0), dataset={"name": "own folder x"}
        )
    assert "| harp | not measured |  |  |  |" in card
    assert "Not measured, because no test clip has it: harp." in card
    assert r"| a\|b |" in card


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(UserError, match=re.escape("results.json is missing")):
        write_card(tmp_path)


def test_an_example_that_may_be_given_away_is_offered_on_the_hub(tmp_path):
    run_dir = make_run(tmp_path / "run", num_clips=60, resamples=10)
    write_example(run_dir, INSTRUMENT_NAMES)
    data = metadata_load(write_card(run_dir))
    [example] = data["widget"]
    assert soundfile.info(run_dir / example["src"]).duration == 6 and "synthesised" in example["example_title"]
    assert (run_dir / example["src"]).stat().st_size < 200_000
    write_example(tmp_path, ["kora", "oud"])
    assert not (tmp_path / "example.flac").exists()
    assert "widget" not in metadata_load(write_card(make_run(tmp_path / "other", num_clips=60, resamples=10)))


def test_the_citation_is_that_of_the_project(tmp_path):
    citation = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text())
    card = card_of(tmp_path / "irmas")
    assert citation["title"] in card and f"version = {{{citation['version']}, commit 0123" in card
    assert "author = {Bosch, Juan J. and Janer, Jordi and Fuhrmann, Ferdinand and Herrera, Perfecto}" in card
    assert "pages = {559--564}" in card and "bosch" not in card_of(tmp_path / "own", dataset={"name": "own folder x"})


@pytest.mark.parametrize(
    ("config", "paper"),
    [
        ({"model_type": "wavlm"}, "chen2022wavlm"),
        ({"model_type": "irmas_encoder", "encoder": {"model_type": "clap_audio_model"}}, "wu2023clap"),
    ],
)
def test_the_model_that_a_run_started_from_is_cited(config, paper, tmp_path):
    run_dir = make_run(tmp_path / "run", recipe={"model_name_or_path": "x/y"}, num_clips=60, resamples=10)
    (run_dir / "config.json").write_text(json.dumps(config | {"thresholds": [0.5] * 11}))
    assert f"@inproceedings{{{paper}," in write_card(run_dir).read_text()


def test_every_paper_of_a_model_has_a_reference():
    citation = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text())
    assert set(PAPER_OF.values()) <= {entry["abbreviation"] for entry in citation["references"]}


def test_the_compute_line_gives_device_hours_and_claims_no_carbon(tmp_path):
    assert "That is 0.51 device-hours; energy and carbon were not measured." in card_of(tmp_path / "run")


def test_a_test_set_of_few_songs_is_said_in_one_sentence(tmp_path):
    card = card_of(tmp_path / "few", num_songs=12)
    assert re.search(r"Only \d+ to \d+ test songs stand behind each instrument", card)
    assert "Few test songs stand behind" not in card


def test_code_to_paste_says_what_a_part_of_the_music_needs():
    assert "librosa" not in usage_section("runs/x", {})
    assert "it needs librosa" in usage_section("runs/x", {"separation": "harmonic"})
    solo = usage_section("runs/x", {"separation": "solo"})
    assert 'trust_remote_code=True, separate=Separation("solo"))' in solo
    for code in re.findall(r"```python\n(.*?)```", solo, re.DOTALL):
        compile(code, "card", "exec")
