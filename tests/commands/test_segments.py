"""`segments` on real files with a tiny AST: what it cuts, names, counts and refuses, and that its folder trains."""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import yaml

import run_irmas
from irmas_dataset import load_irmas
from irmas_dataset.errors import UserError
from irmas_dataset.own_folder import list_own_folder
from irmas_recipe.commands.predict.files import find_audio
from irmas_recipe.commands.segments.choice import Choice, WindowedLogits
from irmas_recipe.commands.segments.cutting import recordings_of
from irmas_recipe.training.recogniser import load_recogniser
from tests.irmas_dataset.test_extra import write_tones
from tests.tiny import save, small_ast

LABELS = ["AC/DC", "oud", "ney: low", "Violin, fiddle"]
RATE = 22_050


def save_model(folder: Path, thresholds: list[float]) -> str:
    """Save a random AST: 1 s windows every 0.5 s."""
    model, extractor = small_ast(
        LABELS, mel_bins=32, window_seconds=1.0, hop_seconds=0.5, aggregation="mean", thresholds=thresholds
    )
    with torch.no_grad():
        model.classifier.dense.weight.normal_(0, 1.0, generator=torch.Generator().manual_seed(1))
    return str(save(model, extractor, folder))


def melody(seconds: float, seed: int, channels: int = 2) -> np.ndarray:
    """Return another tone every 0.7 s, with noise, (samples, channels)."""
    random, time = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    pitch = random.uniform(100, 3000, 100)[(time / 0.7).astype(int)]
    tone = 0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE) + 0.1 * random.standard_normal(len(time))
    return np.stack([tone * (1 - channel / 20) for channel in range(channels)], axis=1)


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> Path:
    """A folder with two files of one name, one of another format with it, odd names, and one of which half is silent."""
    folder = tmp_path_factory.mktemp("music")
    for name, seed in {
        "a/song.wav": 0,
        "b/song.wav": 1,
        "b/song.flac": 2,
        "b/Lied: „Ö“.ogg": 3,
        "b/take: 1?.wav": 4,
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, melody(6, seed), RATE)
    half = melody(8, 5)
    half[: round(3.75 * RATE)] = 0
    soundfile.write(folder / "half silent.wav", half, RATE, "FLOAT")
    return folder


@pytest.fixture(scope="module")
def model(music, tmp_path_factory) -> str:
    """A model that hears each class in half of the windows of the music."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    recognise = load_recogniser(save_model(folder, [0.5] * len(LABELS)), device="cpu", kind=WindowedLogits)
    windows = [window for result in recognise(list(map(str, find_audio([music])))) for window in result["windows"]]
    return save_model(folder, torch.stack([window["logits"] for window in windows]).median(dim=0)[0].sigmoid().tolist())


def segments(*words: object) -> pd.DataFrame:
    """Run the verb and return its table."""
    run_irmas.main(["segments", *map(str, words), "--device", "cpu"])
    folder = Path(words[[*map(str, words)].index("--output_dir") + 1])
    return pd.read_csv(folder / "segments.csv", keep_default_na=False)


@pytest.fixture(scope="module")
def everything(model, music, tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    """Every window that is heard and does not overlap a better one."""
    folder = tmp_path_factory.mktemp("everything") / "heard"
    return folder, segments(model, music, "--output_dir", folder, "--per_class", 999, "--per_recording", 999)


def test_a_segment_is_the_original_audio_with_its_rate_and_channels(everything):
    folder, table = everything
    assert len(table) > 15 and set(table["label"]) == set(LABELS)
    for row in table.to_dict("records"):
        whole, rate = soundfile.read(row["source"], dtype="float32")
        start, end = round(row["start_seconds"] * rate), round(row["end_seconds"] * rate)
        cut, rate_of_cut = soundfile.read(folder / row["path"], dtype="float32")
        assert row["path"].endswith(".flac") and soundfile.info(folder / row["path"]).subtype == "PCM_16"
        assert rate_of_cut == RATE and cut.shape == whole[start:end].shape == (RATE, 2)
        np.testing.assert_allclose(cut, whole[start:end], atol=0.5001 / 2**15)
        if row["source"].endswith(("song.wav", "song.flac")):
            np.testing.assert_array_equal(cut, whole[start:end])


def test_scores_are_those_of_the_model_on_the_segment(everything, model):
    folder, table = everything
    recognise = load_recogniser(model, device="cpu")
    for row in table.head(8).to_dict("records"):
        scores = {found["label"]: found["score"] for found in recognise(str(folder / row["path"]), all_labels=True)}
        assert scores[row["label"]] == pytest.approx(row["score"], abs=0.02), (
            "resampled alone, the ends differ a little"
        )
        logit = np.log(row["score"] / (1 - row["score"])) - np.log(row["threshold"] / (1 - row["threshold"]))
        assert row["margin"] == pytest.approx(logit, abs=1e-3)


def test_segments_of_a_file_do_not_overlap_and_silence_is_never_one(everything):
    folder, table = everything
    for _, of_file in table.groupby("source"):
        of_file = of_file.sort_values("start_seconds")
        assert (of_file["start_seconds"].to_numpy()[1:] >= of_file["end_seconds"].to_numpy()[:-1]).all()
    assert all(np.abs(soundfile.read(folder / path)[0]).max() > 0.01 for path in table["path"])
    assert (table["source"].str.endswith("half silent.wav")).any()


def test_silence_is_never_doubtful_either(model, music, tmp_path):
    table = segments(
        model, music / "half silent.wav", "--output_dir", tmp_path / "d", "--unsure", "--per_recording", 99
    )
    assert table["start_seconds"].min() >= 3


def windows_of(model: str, files: list[str]) -> list[tuple[str, float, np.ndarray]]:
    """Return (file, start, margins) of every window that is not silent."""
    recognise = load_recogniser(model, device="cpu", kind=WindowedLogits)
    thresholds = np.array(recognise.resolve_thresholds())
    return [
        (file, window["start"] / 16_000, window["logits"].numpy() - np.log(thresholds / (1 - thresholds)))
        for file, result in zip(files, recognise(files), strict=True)
        for window in result["windows"]
        if not window["is_silent"]
    ]


def test_the_most_confident_window_of_a_class_is_the_one_with_the_fewest_other_classes_and_the_largest_margin(
    model, music, tmp_path
):
    files = [str(music / "a/song.wav")]
    table = segments(model, *files, "--output_dir", tmp_path / "d")
    windows = windows_of(model, files)
    heard = [(window, index) for window in windows for index in np.flatnonzero(window[2] >= 0)]
    (_, start, margins), index = min(heard, key=lambda pair: ((pair[0][2] >= 0).sum(), -pair[0][2][pair[1]]))
    best = table[(table["start_seconds"] == start) & (table["label"] == LABELS[index])]
    assert len(best) == 1 and best["margin"].item() == pytest.approx(margins[index], abs=1e-4)
    assert (table["score"] >= table["threshold"]).all()
    for _, of_label in table.groupby("label"):
        others = of_label["other_labels"].map(lambda field: len(field.split(";")) if field else 0)
        ranks = list(zip(others, -of_label["margin"], strict=True))
        assert ranks == sorted(ranks)


def test_the_most_doubtful_windows_are_nearest_to_the_threshold_of_their_likeliest_class(model, music, tmp_path):
    files = [str(music / name) for name in ("a/song.wav", "b/song.wav")]
    table = segments(
        model, *files, "--output_dir", tmp_path / "d", "--unsure", "--per_class", 99, "--per_recording", 99
    )
    margins = {(file, start): margins for file, start, margins in windows_of(model, files)}
    for row in table.to_dict("records"):
        of_window = margins[row["source"], row["start_seconds"]]
        assert row["label"] == LABELS[of_window.argmax()]
        assert row["margin"] == pytest.approx(of_window.max(), abs=1e-4)
    nearest = min(abs(of_window.max()) for of_window in margins.values())
    assert table["margin"].abs().min() == pytest.approx(nearest, abs=1e-4)
    for _, of_label in table.groupby("label"):
        assert of_label["margin"].abs().is_monotonic_increasing


def test_no_class_gets_more_than_asked_for_in_all_or_from_one_file(model, music, tmp_path):
    table = segments(model, music, "--output_dir", tmp_path / "a", "--per_class", 3, "--per_recording", 1)
    assert table.groupby("label").size().max() == 3 and table.groupby(["label", "source"]).size().max() == 1
    table = segments(model, music, "--output_dir", tmp_path / "b", "--unsure", "--per_class", 99, "--per_recording", 2)
    assert table.groupby(["label", "source"]).size().max() == 2


def test_only_what_is_chosen_is_kept_in_memory(model):
    recognise = load_recogniser(model, device="cpu", kind=WindowedLogits)
    choice = Choice(recognise, unsure=False, per_class=3, per_recording=2)
    random = torch.Generator().manual_seed(0)
    for number in range(200):
        windows = [
            {"start": 16_000 * second, "stop": 16_000 * (second + 1), "is_silent": False,
             "logits": 3 * torch.randn(len(LABELS), generator=random)}
            for second in range(20)
        ]  # fmt: skip
        choice.add(Path(f"{number}.wav"), windows)
        assert sum(map(len, choice.by_label.values())) <= 3 * len(LABELS)
    assert len(choice.segments) == 3 * len(LABELS) and len({segment.file for segment in choice.segments}) > 5


def test_the_folder_reads_back_with_the_models_labels_and_one_recording_per_file(everything):
    folder, table = everything
    listing = list_own_folder(folder)
    assert listing.classes == tuple(sorted(LABELS)) and not listing.warnings
    clips = {clip.name: clip for clip in listing.clips}
    assert set(clips) == set(table["path"])
    for row in table.to_dict("records"):
        assert clips[row["path"]].instruments == (row["label"],)
        assert clips[row["path"]].recording == row["recording"]
    pairs = table[["source", "recording"]].drop_duplicates()
    assert len(pairs) == pairs["source"].nunique() == pairs["recording"].nunique() == 6
    assert (folder / "train" / "AC%2FDC").is_dir()


def test_no_recording_is_on_two_sides_even_after_a_file_was_moved_to_another_class(everything, tmp_path):
    folder = shutil.copytree(everything[0], tmp_path / "corrected")
    for path in list((folder / "train" / "oud").iterdir())[:3]:
        path.rename(folder / "train" / "AC%2FDC" / path.name)
    splits = load_irmas(folder, validation_fraction=0.3, cache_dir=tmp_path / "cache")
    sides = [set(split["recording"]) for split in splits.values()]
    assert all(sides) and sum(map(len, sides)) == len(set.union(*sides))


def test_names_that_are_too_long_or_hidden_stay_apart():
    files = [
        Path("a", "x" * 240 + ".wav"),
        Path("b", "x" * 240 + ".wav"),
        Path("Song.wav"),
        Path("c/song.wav"),
        Path(".a.wav"),
    ]
    names = recordings_of(files)
    assert len({name.casefold() for name in names.values()}) == 5
    assert all(len(f"{name}__0000.00s.flac.unfinished") <= 255 and not name.startswith(".") for name in names.values())


def test_an_unreadable_file_costs_only_itself(model, music, tmp_path, capsys):
    (tmp_path / "broken.wav").write_text("no samples here")
    with pytest.raises(SystemExit) as stopped:
        segments(model, tmp_path / "broken.wav", music / "a", "--output_dir", tmp_path / "d")
    assert stopped.value.code == 1
    assert set(pd.read_csv(tmp_path / "d/segments.csv")["source"]) == {str(music / "a/song.wav")}
    assert "1 of 2 files could not be read" in capsys.readouterr().err


def test_a_file_that_is_gone_when_it_is_cut_costs_only_itself(model, music, tmp_path, monkeypatch, capsys):
    shutil.copytree(music / "b", tmp_path / "b")
    add = Choice.add

    def lose_one(self, file, windows):
        add(self, file, windows)
        if file.name == "song.wav":
            file.unlink()

    monkeypatch.setattr(Choice, "add", lose_one)
    with pytest.raises(SystemExit):
        segments(model, tmp_path / "b", "--output_dir", tmp_path / "d", "--per_class", 99)
    table = pd.read_csv(tmp_path / "d/segments.csv")
    assert not table["source"].str.endswith("song.wav").any() and len(table) > 3
    assert len(list((tmp_path / "d").rglob("*.flac"))) == len(table)
    assert "b/song.wav cannot be read as audio" in capsys.readouterr().err


def test_more_channels_than_flac_has_become_wav(model, tmp_path):
    soundfile.write(tmp_path / "nine.wav", melody(3, 1, channels=9), RATE)
    table = segments(model, tmp_path / "nine.wav", "--output_dir", tmp_path / "d", "--unsure")
    assert table["path"].str.endswith(".wav").all()
    assert soundfile.info(tmp_path / "d" / table["path"][0]).channels == 9


def test_where_nothing_is_heard_it_says_so_and_leaves_nothing(music, tmp_path):
    deaf = save_model(tmp_path / "deaf", [1.0] * len(LABELS))
    with pytest.raises(UserError, match="no window reaches a threshold; --unsure takes the nearest ones"):
        segments(deaf, music, "--output_dir", tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_folder_with_something_in_it_is_refused_and_stays(model, music, tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(UserError, match="is not empty; name a new folder"):
        segments(model, music, "--output_dir", tmp_path)
    assert (tmp_path / "mine").read_text() == "kept"


def test_a_label_that_is_too_long_for_a_folder_is_refused_before_any_work(music, tmp_path):
    with pytest.raises(UserError, match="too long for the name of a folder"):
        segments(save(*small_ast(["x" * 300, "oud"], mel_bins=32, window_seconds=1.0), tmp_path / "m"), music,
                 "--output_dir", tmp_path / "d")  # fmt: skip
    assert not (tmp_path / "d").exists()


def test_the_printed_command_trains_with_what_was_heard(tmp_path, monkeypatch, capsys):
    """Two classes with IRMAS's codes; music is cut, one file moved, and the command taken as it was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write_tones(Path("music"), "train", {"flu": [500, 510, 520, 530, 540], "AC%2FDC": [90, 95, 100, 105, 110]})
    write_tones(Path("new"), "songs", {"x": [93, 97, 505, 515], "y": [93]})
    recipe = {
        "architecture": "cnn", "model_config": {"architecture": "spectrogram_image"}, "window_seconds": 1.0, "max_steps": 2,
        "per_device_train_batch_size": 4, "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False,
        "bootstrap_resamples": 20, "use_cpu": True, "bf16": False, "disable_tqdm": True, "data_dir": "music",
    }  # fmt: skip
    Path("tiny.yaml").write_text(yaml.safe_dump(recipe))
    run_irmas.main(["tiny.yaml", "--output_dir", "runs/first"])
    earlier = {"extra_train_dir": "earlier", "extra_label_map": {"Flöte": "flu"}, "extra_columns": {"data_config": "a"}}
    Path("runs/first/recipe.yaml").write_text(Path("runs/first/recipe.yaml").read_text() + yaml.safe_dump(earlier))
    capsys.readouterr()
    table = segments("runs/first", "new", "--output_dir", "heard", "--unsure")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"Wrote {len(table)} windows of 5 files to heard, 0.1 minutes of music:"
    assert said[-3] == "Listen to heard/train: move a wrong file into the folder of the right class, or delete it."
    assert said[-2] == (
        "runs/first was trained with earlier too: to keep its clips, copy them into the folders of their classes in "
        "heard/train (extra_label_map in runs/first/recipe.yaml names them)."
    )
    assert sorted(path.name for path in Path("heard/train").iterdir()) == ["AC%2FDC", "flute"]
    moved = Path("heard", table["path"][0])
    moved.rename(moved.parents[1] / ("flute" if moved.parent.name != "flute" else "AC%2FDC") / moved.name)
    run_irmas.main(shlex.split(said[-1].split("irmas ")[1]))
    results = yaml.safe_load(Path("runs/first-corrected/results.json").read_text())
    assert results["dataset"]["classes"] == ["AC/DC", "flu"] and results["dataset"]["extra_train_clips"] == len(table)
    assert "runs/first-corrected was trained with heard too" not in "\n".join(said)
    segments("runs/first-corrected", "new", "--output_dir", "again", "--unsure")
    said = capsys.readouterr().out
    assert "runs/first-corrected was trained with heard too" in said and "extra_label_map" not in said
