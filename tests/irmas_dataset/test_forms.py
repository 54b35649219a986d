"""A data set in any of the Hub's forms gives the same clips and splits; an error names the columns and the flag."""

import hashlib
import io
import json
import os
import unicodedata
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, List, Value

from irmas_dataset import describe, load_irmas, prepare
from irmas_dataset.errors import UserError
from irmas_dataset.export.stream import load_streamed
from irmas_dataset.export.tables import read_audio
from irmas_dataset.export.write import export
from irmas_dataset.forms.flags import Columns
from irmas_dataset.forms.form import is_hub_id
from irmas_dataset.forms.labels import answer, label_reader
from irmas_dataset.synthetic_openmic import synthesize_openmic
from irmas_recipe.training.data import data_folder, load_data
from irmas_recipe.training.evaluation import clip_names
from irmas_recipe.training.fields import DataArguments
from tests.irmas_dataset.folders import write_audio, write_irmas
from tests.irmas_dataset.form_folders import CLASSES, TEST, TRAIN, WRITERS, audio_folder, own_folder, parquet_folder
from tests.irmas_dataset.range_server import serve_folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def clips_of(splits) -> dict[str, list]:
    """Return what each split has, whatever the files are called."""
    names = splits["train"].features["instruments"].feature.names
    return {
        name: sorted(
            (row["md5"], row["recording"], row["song"], tuple(names[i] for i in row["instruments"])) for row in split
        )
        for name, split in splits.items()
    }


@pytest.fixture
def expected(tmp_path):
    return clips_of(load_irmas(own_folder(tmp_path / "own"), validation_fraction=0.3))


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_gives_the_splits_of_the_same_music_in_a_folder(tmp_path, expected, form):
    columns = Columns(label_column=",".join(CLASSES)) if "0/1" in form else Columns()
    splits = load_irmas(WRITERS[form](tmp_path / "set"), validation_fraction=0.3, columns=columns)
    assert clips_of(splits) == expected and len(expected["test"]) == TEST
    assert splits["train"].features["instruments"].feature.names == list(CLASSES)
    assert describe(splits)["name"] == "folder set"
    waveforms = prepare(splits["test"], 16_000, num_proc=1)["waveform"]
    assert [len(waveform) for waveform in waveforms] == [800] * TEST


@pytest.mark.parametrize("form", ["Parquet with class ids", "Parquet with text", "metadata.csv"])
def test_a_streamed_set_has_the_same_splits_and_stores_no_training_audio(tmp_path, expected, form, cache):
    root = WRITERS[form](tmp_path / "set")
    splits = load_streamed(str(root), validation_fraction=0.3)
    for name, split in splits.items():
        rows = split.to_list()
        if name == "train":
            contents = [read_audio(r["shard"], r["row_group"], [r["row"]], r["audio_column"])[0] for r in rows]
        else:
            contents = [Path(row["path"]).read_bytes() for row in rows]
        found = zip([hashlib.md5(content).hexdigest() for content in contents], split["recording"], strict=True)
        assert sorted(found) == [(md5, recording) for md5, recording, *_ in expected[name]]
    if form.startswith("Parquet"):
        assert not any(Path(path).exists() for path in splits["train"]["path"])


def test_a_folder_in_a_layout_of_its_own_is_not_streamed(tmp_path):
    with pytest.raises(UserError, match=r"has no data/train-.* its own layout cannot be streamed: run `irmas export"):
        load_streamed(str(own_folder(tmp_path / "own")))


def test_a_served_folder_of_parquet_gives_the_same_splits(tmp_path, expected):
    with serve_folder(parquet_folder(tmp_path / "set", "names")) as server:
        assert clips_of(load_irmas(server.url, validation_fraction=0.3)) == expected
        streamed = load_streamed(server.url, validation_fraction=0.3)
        assert {name: len(split) for name, split in streamed.items()} == {k: len(v) for k, v in expected.items()}


def test_files_are_taken_out_once_and_again_when_a_table_changes(tmp_path):
    root = parquet_folder(tmp_path / "set", "ids")
    path = Path(load_irmas(root)["test"]["path"][0])
    before = path.stat().st_mtime_ns
    load_irmas(root)
    assert path.stat().st_mtime_ns == before
    shard = root / "data/test-00000-of-00002.parquet"
    os.utime(shard, ns=(1, 1))
    load_irmas(root)
    assert path.stat().st_mtime_ns != before


def md5_of_test(splits) -> set[str]:
    return {hashlib.md5(Path(path).read_bytes()).hexdigest() for path in splits["test"]["path"]}


def test_streamed_audio_is_fetched_again_when_a_table_changes(tmp_path):
    for split, seed in (("train", 0), ("test", 50)):
        root = table(tmp_path / "set", Value("string"), ["kora", "oud"] * 4, split, first_seed=seed)
    before = md5_of_test(load_streamed(str(root)))
    table(root, Value("string"), ["kora", "oud"] * 4, "test", first_seed=100)
    after = md5_of_test(load_streamed(str(root)))
    assert len(before) == len(after) == 8 and not before & after
    assert after == md5_of_test(load_irmas(root)) == md5_of_test(load_streamed(str(root)))


def test_another_column_of_audio_is_another_test_set_however_it_is_read(tmp_path):
    for split in ("train", "test"):
        mix, stem = (rows_of(["kora", "oud"] * 4, first_seed=seed) for seed in (0, 100))
        rows = [{"mix": a["audio"], "stem": b["audio"], "label": a["label"]} for a, b in zip(mix, stem, strict=True)]
        (tmp_path / "set/data").mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / f"set/data/{split}-00000-of-00001.parquet")
    wanted = {
        "mix": {hashlib.md5(wav(seed)).hexdigest() for seed in range(8)},
        "stem": {hashlib.md5(wav(100 + seed)).hexdigest() for seed in range(8)},
    }
    reads = (
        (load_streamed, "mix"),
        (load_streamed, "stem"),
        (load_irmas, "mix"),
        (load_streamed, "stem"),
        (load_irmas, "mix"),
    )
    for load, column in reads:
        assert md5_of_test(load(str(tmp_path / "set"), columns=Columns(audio_column=column))) == wanted[column]


def test_class_folders_of_the_hub_are_training_clips(tmp_path):
    for number in range(8):
        write_audio(tmp_path / f"set/{CLASSES[number % 2]}/{number}.wav", number)
    splits = load_irmas(tmp_path / "set")
    assert splits["train"].features["instruments"].feature.names == ["kora", "oud"]
    assert sum(map(len, splits.values())) == 8 and len(splits["test"]) == 2


def test_other_tables_beside_a_folder_of_ones_own_do_not_make_it_a_form(tmp_path):
    root = tmp_path / "set"
    for number in range(TRAIN):
        write_audio(root / f"train/{CLASSES[number % 2]}/{number}.wav", number)
    (root / "train/metadata.csv").write_text("what,when\ntakes,today\n")
    pyarrow.parquet.write_table(pa.table({"score": [0.5]}), root / "scores.parquet")
    splits = load_irmas(root)
    assert describe(splits)["name"] == "own folder set" and sum(map(len, splits.values())) == TRAIN


@pytest.mark.parametrize(
    "listed", ["{tmp}/other/*.wav", "../other/*.wav", "file://{tmp}/other/x.wav", "http://localhost:1/x.parquet"]
)
@pytest.mark.parametrize("card", ["README.md", ".huggingface.yaml"])
def test_a_card_lists_no_files_outside_its_folder(tmp_path, listed, card):
    """`datasets` would read them, or fetch them unasked."""
    root, listed = parquet_folder(tmp_path / "set", "ids"), listed.format(tmp=tmp_path)
    write_audio(tmp_path / "other/x.wav", 0)
    line = "---\n" * (card == "README.md")
    (root / card).write_text(
        f"{line}configs: [{{config_name: all, data_files: [{{split: train, path: '{listed}'}}]}}]\n{line}"
    )
    with pytest.raises(UserError, match=r"lists .* under `configs`, which is not inside"):
        load_irmas(root)


def test_named_splits_columns_and_configurations(tmp_path, caplog):
    root = parquet_folder(tmp_path / "set", "ids", extra={"take": "one"})
    (root / "README.md").write_text(
        "---\nconfigs:\n- config_name: all\n  data_files:\n  - {split: learn, path: data/train-*}\n"
        "  - {split: judge, path: data/test-*}\n  - {split: more, path: data/test-*}\n"
        "- config_name: few\n  data_files: [{split: learn, path: data/test-*}]\n---\n"
    )
    with pytest.raises(UserError, match=r"several configurations: name one, such as --data_config all"):
        load_irmas(root)
    with pytest.raises(UserError, match=r"the splits learn, judge, more: .*--train_split learn"):
        load_irmas(root, columns=Columns(data_config="all"))
    with pytest.raises(UserError, match=r"no split exam; its splits are learn, judge, more: give one as --test_split"):
        load_irmas(root, columns=Columns(data_config="all", train_split="learn", test_split="exam"))
    columns = Columns(data_config="all", train_split="learn", test_split="judge", recording_column="take")
    splits = load_irmas(root, columns=columns)
    assert set(splits["test"]["recording"]) == {"one"} and "the split more is not read" in caplog.text
    held_out = load_irmas(root, columns=Columns(data_config="all", train_split="learn", test_split="none"))
    assert describe(held_out)["test_is_held_out"] and sum(map(len, held_out.values())) == TRAIN


def parquet(root: Path, features: dict, row: dict) -> Path:
    """Write a training table of two equal rows."""
    root.mkdir()
    table = pa.Table.from_pylist([row] * 2, Features(features).arrow_schema)
    pyarrow.parquet.write_table(table, root / "train.parquet")
    return root


def value_of(kind: object) -> object:
    """Return a value of a type of label."""
    if isinstance(kind, List):
        return [value_of(kind.feature)]
    return 0 if isinstance(kind, ClassLabel) else 1.0 if kind.dtype == "float32" else "kora"


@pytest.mark.parametrize(
    ("features", "columns", "sentence"),
    [
        ({"sound": Audio(), "noise": Audio(), "label": Value("string")}, {},
         r"several columns of audio among sound, noise, label: name one, such as --audio_column sound"),
        ({"text": Value("string"), "label": Value("string")}, {}, r"no column of audio among text, label"),
        ({"audio": Audio(), "mood": Value("string"), "player": Value("string")}, {},
         r"which of its columns audio, mood, player has the labels is not clear: name it, such as --label_column mood"),
        ({"audio": Audio(), "genre": ClassLabel(names=["kora"]), "instruments": List(Value("string"))}, {},
         r"which of its columns audio, genre, instruments has .* not clear: name it, such as --label_column instruments"),
        ({"audio": Audio(), "label": Value("string")}, {"label_column": "lable"},
         r"--label_column lable: .* no such column; its columns are audio, label"),
        ({"audio": Audio(), "label": Value("string")}, {"audio_column": "label"},
         r"--audio_column label: .* has no audio there but Value.*; name audio\."),
        ({"audio": Audio(), "label": Value("string")}, {"recording_column": "song"},
         r"--recording_column song: .* no such column; its columns are audio, label"),
        ({"audio": Audio(), "label": Value("float32")}, {"label_column": "label"}, r"no class names there but Value"),
    ],
)  # fmt: skip
def test_an_error_names_the_columns_and_the_flag(tmp_path, features, columns, sentence):
    row = {
        name: {"bytes": b"", "path": "a"} if isinstance(kind, Audio) else value_of(kind)
        for name, kind in features.items()
    }
    with pytest.raises(UserError, match=sentence) as raised:
        load_irmas(parquet(tmp_path / "set", features, row), columns=Columns(**columns))
    assert str(raised.value).count("\n") == 0


def test_a_set_that_is_nowhere_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"--data_dir someone/music .*"):
        load_irmas("someone/music")


@pytest.mark.parametrize(
    ("location", "is_id"),
    [("user/name", True), ("data/irmas", False), ("here/gone", False), ("/user/name", False), ("name", False),
     ("a/b/c", False), ("https://host/x", False)],
)  # fmt: skip
def test_an_id_of_the_hub_is_no_path_of_this_machine(tmp_path, monkeypatch, location, is_id):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert is_hub_id(location) is is_id


def test_without_recordings_a_sentence_says_what_cannot_be_known(tmp_path, caplog):
    root = audio_folder(tmp_path / "set", "jsonl")
    for path in root.glob("*/metadata.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({k: r[k] for k in ("file_name", "label")}) + "\n" for r in rows))
    splits = load_irmas(root)
    assert "clips of one recording may be on both sides of a split" in caplog.text
    assert "--recording_column" in caplog.text and len(set(splits["train"]["recording"])) == len(splits["train"])
    caplog.clear()
    splits = load_irmas(root, recording_pattern="train[0-9]")
    assert "both sides" not in caplog.text and set(splits["train"]["recording"]) <= {f"train{i}" for i in range(3)}


@pytest.mark.parametrize(
    ("value", "says"), [(1, True), ("0", False), (True, True), (0.0, False), (None, None), (-1, None), ("", None),
                        (float("nan"), None), ("Yes", True), ("unknown", None)],
)  # fmt: skip
def test_a_cell_says_yes_no_or_nothing(value, says):
    assert answer(value, "here") is says


NAMES = ["Violin, fiddle", "flute", "piano"]
LABELS = {
    "class ids": (ClassLabel(names=NAMES), lambda name: NAMES.index(name)),
    "text": (Value("string"), lambda name: f'"{name}"'),
    "lists of text": (List(Value("string")), lambda name: [name]),
}
UNKNOWN_LABELS = {
    "lists of text": (List(Value("string")), lambda names: names),
    "lists of class ids": (List(ClassLabel(names=NAMES[::-1])), lambda names: [NAMES[::-1].index(n) for n in names]),
    "text": (Value("string"), lambda names: ";".join(f'"{name}"' for name in names)),
    "a class id": (ClassLabel(names=[*NAMES[::-1], "more"]), lambda names: NAMES[::-1].index(names[0])),
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("unknown", UNKNOWN_LABELS)
def test_unknown_classes_are_read_by_the_type_of_their_own_column(labels, unknown):
    (kind, of_label), (of_unknown, of_names) = LABELS[labels], UNKNOWN_LABELS[unknown]
    listed = {"flute": NAMES[:1], "piano": NAMES[:1] if unknown == "a class id" else NAMES[:2], NAMES[0]: NAMES[2:]}
    rows = [{"label": of_label(name), "unknown": of_names(others)} for name, others in listed.items()]
    reader = label_reader(Features({"label": kind, "unknown": of_unknown}), ("label",), rows, "set")
    assert reader.classes == tuple(NAMES)
    assert [reader.read(row, "row") for row in rows] == [((one,), tuple(others)) for one, others in listed.items()]


@pytest.mark.parametrize(
    ("kind", "columns", "row", "wrong"),
    [
        (ClassLabel(names=["kora", "oud"]), ("label",), {"label": 0, "unknown": ["harp"]}, "harp"),
        (Value("string"), ("label",), {"label": "kora", "unknown": [7]}, "7"),
        (Value("int64"), ("label",), {"label": 0, "unknown": ["kora"]}, "kora"),
        (Value("int8"), ("label", "more"), {"label": 0, "more": 1, "unknown": ["harp"]}, "harp"),
    ],
)
def test_an_unknown_class_that_is_no_class_is_refused(kind, columns, row, wrong):
    of_unknown = List(Value("int64" if wrong == "7" else "string"))
    features = Features({name: kind for name in columns} | {"unknown": of_unknown})
    with pytest.raises(UserError, match=f"row 3, column unknown: {wrong} is no class; the classes are "):
        label_reader(features, columns, [row], "set").read(row, "row 3")


def test_a_cell_that_says_something_else_is_refused():
    with pytest.raises(UserError, match=r"row 3, column oud: 0\.7 is neither 1 \(yes\), 0 \(no\) nor empty"):
        answer(0.7, "row 3, column oud")


def test_the_audio_column_is_what_datasets_expects_and_is_not_decoded(tmp_path):
    splits = load_irmas(own_folder(tmp_path / "own"), audio=True)
    kind = splits["train"].features["audio"]
    assert isinstance(kind, Audio) and not kind.decode
    row = splits["test"][0]
    assert row["audio"] == {"bytes": None, "path": row["path"]}
    decoding = splits["train"].cast_column("audio", Audio(sampling_rate=16_000)).features["audio"]
    assert decoding.decode and decoding.sampling_rate == 16_000


@pytest.mark.parametrize("how", ["from its folder", "as any Parquet"])
def test_an_export_is_read_like_what_it_was_made_from(tmp_path, expected, how):
    export(own_folder(tmp_path / "own"), tmp_path / "export")
    columns = Columns(label_column="instruments") if how == "as any Parquet" else Columns()
    assert clips_of(load_irmas(tmp_path / "export", validation_fraction=0.3, columns=columns)) == expected


def test_a_set_of_any_form_is_exported(tmp_path, expected):
    counts = export(parquet_folder(tmp_path / "set", "names"), tmp_path / "export")
    assert counts == {"train": TRAIN, "test": TEST}
    assert clips_of(load_irmas(tmp_path / "export", validation_fraction=0.3)) == expected


def rows_of(values: list, more: dict | None = None, first_seed: int = 0) -> list[dict]:
    """Return one row for each value of `label`, with audio of its own."""
    return [
        {"audio": {"bytes": wav(first_seed + number), "path": f"{number}.wav"}, "label": value} | (more or {})
        for number, value in enumerate(values)
    ]


def wav(seed: int) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, 0.1 * np.random.default_rng(seed).standard_normal(800), 16_000, format="WAV")
    return content.getvalue()


def table(root: Path, kind: object, values: list, split: str = "train", first_seed: int = 0, **more) -> Path:
    """Write Parquet with audio and a column `label` of a type; `more`: columns of text."""
    features = Features({"audio": Audio(), "label": kind} | {name: Value("string") for name in more})
    (root / "data").mkdir(parents=True, exist_ok=True)
    content = pa.Table.from_pylist(rows_of(values, more, first_seed), features.arrow_schema)
    pyarrow.parquet.write_table(content, root / f"data/{split}-00000-of-00001.parquet")
    return root


def labels_in(splits) -> list[list[str]]:
    names = splits["train"].features["instruments"].feature.names
    return sorted([names[i] for i in labels] for split in splits.values() for labels in split["instruments"])


@pytest.mark.parametrize("kind", [ClassLabel(names=["kora", "oud"]), List(ClassLabel(names=["kora", "oud"]))])
def test_a_class_id_of_minus_one_is_no_label(tmp_path, caplog, kind):
    values = [0, 1, -1, 0, 1]
    splits = load_irmas(
        table(tmp_path / "set", kind, values if isinstance(kind, ClassLabel) else [[v] for v in values])
    )
    assert labels_in(splits) == [["kora"]] * 2 + [["oud"]] * 2
    assert "has no label and will be skipped" in caplog.text


@pytest.mark.parametrize("wrong", [2, -2])
def test_a_class_id_that_no_class_has_is_refused(tmp_path, wrong):
    root = table(tmp_path / "set", ClassLabel(names=["kora", "oud"]), [0, 1, wrong])
    for load in (load_irmas, load_streamed):
        with pytest.raises(UserError, match=f": {wrong} is no class id; they are 0 to 1"):
            load(str(root))


KORA_FIRST, OUD_FIRST = ClassLabel(names=["kora", "oud"]), ClassLabel(names=["oud", "kora"])


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (OUD_FIRST, [0, 1], "its column label is ClassLabel.*'oud', 'kora'.*, but ClassLabel.*'kora', 'oud'.* in other tables"),
        (List(OUD_FIRST), [[0], [1]], "its column label is ClassLabel.*, but ClassLabel.* in other tables"),
        (Value("string"), ["oud", "kora"], "its column label is Value.*, but ClassLabel.* in other tables"),
        (None, [0, 1], "has no column label, as other tables have"),
    ],
)  # fmt: skip
def test_class_ids_mean_the_same_in_every_table_or_are_refused(tmp_path, kind, values, words):
    root = table(tmp_path / "set", KORA_FIRST, [0, 1] * 4)
    path = Path(
        table(root, kind or KORA_FIRST, values, split="test", first_seed=100), "data/test-00000-of-00001.parquet"
    )
    if kind is None:
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop_columns("label"), path)
    for load in (load_irmas, load_streamed):
        with pytest.raises(UserError, match=f"{path}:? {words}"):
            load(str(root))


def test_class_ids_mean_the_same_in_every_saved_split_or_are_refused(tmp_path):
    saved = {}
    for split, kind in (("train", KORA_FIRST), ("test", OUD_FIRST)):
        features = Features({"audio": {"bytes": Value("binary"), "path": Value("string")}, "label": kind})
        rows = [{"audio": {"bytes": wav(number), "path": "a.wav"}, "label": number % 2} for number in range(4)]
        saved[split] = Dataset.from_list(rows, features=features)
    DatasetDict(saved).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(UserError, match=r"test/data-.*arrow: its column label is ClassLabel.* in other tables"):
        load_irmas(tmp_path / "set")


def test_class_numbers_are_classes_where_they_are_named_as_the_labels(tmp_path):
    root = table(tmp_path / "set", Value("int64"), [2, 10, 2, 10, -1])
    with pytest.raises(UserError, match="such as --label_column label"):
        load_irmas(root)
    splits = load_irmas(root, columns=Columns(label_column="label"))
    assert splits["train"].features["instruments"].feature.names == ["2", "10"]
    assert labels_in(splits) == [["10"]] * 2 + [["2"]] * 2
    lists = table(tmp_path / "lists", List(Value("int8")), [[0, 1], [1, 0]])
    with pytest.raises(UserError, match="no class names there but Value"):
        load_irmas(lists, columns=Columns(label_column="label"))


def test_a_bar_between_labels_is_a_separator_or_asked_about(tmp_path):
    splits = load_irmas(table(tmp_path / "set", Value("string"), ["kora|oud", "oud", "kora", "oud"]))
    assert labels_in(splits) == [["kora"], ["kora", "oud"], ["oud"], ["oud"]]
    with pytest.raises(UserError, match=r"is `kora\|drum` one label or several"):
        load_irmas(table(tmp_path / "other", Value("string"), ["kora|drum", "oud"]))


def test_a_title_is_not_taken_for_the_label_beside_booleans(tmp_path):
    features = {"audio": Audio(), "kora": Value("bool"), "oud": Value("bool"), "title": Value("string")}
    row = {"audio": {"bytes": wav(0), "path": "a.wav"}, "kora": True, "oud": False, "title": "Song"}
    with pytest.raises(UserError, match="such as --label_column kora,oud"):
        load_irmas(parquet(tmp_path / "set", features, row))


def test_a_card_says_which_files_are_which_split_of_class_folders(tmp_path):
    root = tmp_path / "set"
    for number in range(12):
        write_audio(root / f"{'fit' if number < 8 else 'judge'}/{CLASSES[number % 2]}/{number}.wav", number)
    (root / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: fit/**}\n"
        "  - {split: test, path: judge/**}\n---\n"
    )
    splits = load_irmas(root)
    assert splits["train"].features["instruments"].feature.names == ["kora", "oud"] and len(splits["test"]) == 4
    assert clips_of(load_streamed(str(root)))["test"] == clips_of(splits)["test"]


def test_class_folders_are_divided_alike_streamed_or_not(tmp_path):
    root = tmp_path / "set"
    for number in range(12):
        write_audio(root / f"{['AC%2FDC', 'oud'][number % 2]}/{number}.wav", number)
    splits, streamed = load_irmas(root), load_streamed(str(root))
    assert splits["train"].features["instruments"] == streamed["train"].features["instruments"]
    assert splits["train"].features["instruments"].feature.names[0] == "AC/DC"
    for name in splits:
        assert sorted(splits[name]["path"]) == sorted(streamed[name]["path"])


@pytest.mark.parametrize(
    ("clips", "wrong"),
    [
        ([f"train/{name}/disc {n}/{n}.wav" for name in CLASSES for n in (1, 2)], "train/kora/disc 1/1.wav"),
        (["train/0.wav", "train/1.wav", "test/2.wav", "test/3.wav"], "t[re][a-z]+/[0-9].wav"),
    ],
)  # fmt: skip
def test_no_folder_but_a_clips_class_is_taken_for_it(tmp_path, clips, wrong):
    root = tmp_path / "set"
    for number, clip in enumerate(clips):
        write_audio(root / clip, number)
    for read in (partial(load_irmas, columns=Columns(test_split="none")), load_streamed):
        with pytest.raises(UserError, match=f"{root}/{wrong}: .*takes the innermost folder for the class"):
            read(str(root))


@pytest.mark.parametrize("write", [write_irmas, own_folder, partial(synthesize_openmic, train=4, test=2, seconds=0.1)])
def test_flags_of_columns_are_refused_where_a_layout_has_names_of_its_own(tmp_path, write):
    write(tmp_path / "set")
    with pytest.raises(UserError, match=r"--test_split is of no use for IRMAS.*: leave it out"):
        load_irmas(tmp_path / "set", columns=Columns(test_split="none"))


@pytest.mark.parametrize("place", ["", "train/", "data/", "data/train/"])
def test_class_folders_may_lie_where_the_hub_has_them(tmp_path, place):
    for number in range(8):
        write_audio(tmp_path / f"set/{place}{CLASSES[number % 2]}/{number}.wav", number)
    for read in (partial(load_irmas, columns=Columns(test_split="none")), load_streamed):
        splits = read(str(tmp_path / "set"))
        assert splits["train"].features["instruments"].feature.names == ["kora", "oud"]


def test_save_to_disk_is_read_and_not_streamed(tmp_path):
    features = Features({"audio": Audio(decode=False), "label": ClassLabel(names=["kora", "oud"])})
    of = {
        split: Dataset(pa.Table.from_pylist(rows_of([0, 1] * 4), features.arrow_schema)) for split in ("train", "test")
    }
    of["test"] = Dataset(pa.Table.from_pylist(rows_of([0, 1] * 4, {})[4:], features.arrow_schema))
    DatasetDict({"train": of["train"].select(range(4)), "test": of["test"]}).save_to_disk(tmp_path / "set")
    assert len(load_irmas(tmp_path / "set")["test"]) == 4
    with pytest.raises(UserError, match=r"only Parquet and audio files can be streamed.*--streaming false"):
        load_streamed(str(tmp_path / "set"))


def test_a_loading_script_is_refused_in_words(tmp_path):
    root = table(tmp_path / "set", Value("string"), ["kora", "oud"])
    (root / "set.py").write_text("")
    with pytest.raises(UserError, match=r"no longer supported, but found set.py. Give its Parquet files"):
        load_irmas(root)


def test_a_table_above_the_splits_folders_is_refused(tmp_path):
    root = audio_folder(tmp_path / "set", "csv")
    lines = ["file_name,label"]
    for split in ("train", "test"):
        lines += [
            f"{split}/{line.rsplit(',', 1)[0]}" for line in (root / split / "metadata.csv").read_text().splitlines()[1:]
        ]
        (root / split / "metadata.csv").unlink()
    (root / "metadata.csv").write_text("\n".join(lines))
    for load in (load_irmas, load_streamed):
        with pytest.raises(UserError, match=r"metadata.csv is not read by `datasets`.*the folder of each split"):
            load(str(root))


@pytest.mark.parametrize("load", [load_irmas, load_streamed])
def test_a_folder_behind_a_link_is_read_and_its_clips_have_the_names_in_it(tmp_path, load):
    (tmp_path / "link").symlink_to(audio_folder(tmp_path / "set", "csv"))
    corrections = tmp_path / "corrections.csv"
    corrections.write_text("path,instruments\ntrain/train00.wav,oud\ntrain/train01.wav,oud\n")
    splits = load(str(tmp_path / "link"), validation_fraction=0.3, corrections=corrections)
    assert len(splits["train"]) + len(splits["validation"]) == TRAIN and len(splits["test"]) == TEST
    oud = CLASSES.index("oud")
    changed = [r for split in splits.values() for r in split if r["path"].endswith(("train00.wav", "train01.wav"))]
    assert [row["instruments"] for row in changed] == [[oud], [oud]]
    home = data_folder(DataArguments(data_dir=str(tmp_path / "link")))
    assert all(name.startswith("test/test") for name in clip_names(splits["test"], home))


@pytest.mark.parametrize("how", [{}, {"streaming": True}, {"test_split": "none"}])
def test_clips_of_class_folders_behind_a_link_have_the_names_in_them(tmp_path, how):
    for number in range(12):
        write_audio(tmp_path / f"set/train/{CLASSES[number % 2]}/{number}.wav", number)
    (tmp_path / "link").symlink_to(tmp_path / "set")
    data = DataArguments(data_dir=str(tmp_path / "link"), **how)
    names = clip_names(load_data(data)["test"], data_folder(data))
    assert len(names) == 2 and all(name.startswith("train/") for name in names)


@pytest.mark.parametrize("load", [load_irmas, load_streamed])
def test_a_test_split_without_labels_is_held_out_instead(tmp_path, caplog, load):
    root = table(tmp_path / "set", ClassLabel(names=["kora", "oud"]), [0, 1] * 6)
    table(root, ClassLabel(names=["kora", "oud"]), [-1] * 4, split="test")
    assert sum(map(len, load(str(root)).values())) == 12
    assert "no clip of the split test has a label, so recordings of train are held out" in caplog.text


def test_a_table_names_no_files_but_those_of_its_own_disk(tmp_path, caplog, monkeypatch):
    """What it names elsewhere is neither fetched nor, by a table that is itself elsewhere, read from this machine."""
    root = table(tmp_path / "set", ClassLabel(names=["kora", "oud"]), [0, 1] * 6)
    path, own = root / "data/train-00000-of-00001.parquet", tmp_path / "own.wav"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    own.write_bytes(rows[0]["audio"]["bytes"])
    rows[0]["audio"] = {"bytes": None, "path": str(own)}
    rows[1]["audio"] = {"bytes": None, "path": own.as_uri()}  # an address: as good as http:// here
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, pyarrow.parquet.read_schema(path)), path)
    assert sum(map(len, load_irmas(root).values())) == 11
    assert f"{own.as_uri()}, which a table names, does not exist on the table's disk" in caplog.text
    assert sum(map(len, load_irmas(root.as_uri()).values())) == 10


def test_missing_and_damaged_audio_costs_only_its_clips(tmp_path, caplog):
    root = table(tmp_path / "set", ClassLabel(names=["kora", "oud"]), [0, 1] * 6)
    path = root / "data/train-00000-of-00001.parquet"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    rows[0]["audio"] = None
    rows[1]["audio"] = {"bytes": b"broken", "path": "1.wav"}
    rows[2]["audio"] = {"bytes": None, "path": str(tmp_path / "nowhere.wav")}
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, pyarrow.parquet.read_schema(path)), path)
    splits = load_irmas(root)
    assert sum(map(len, splits.values())) == 9 and "nowhere.wav, which a table names, does not exist" in caplog.text
    streamed = load_streamed(str(root))
    assert all(Path(p).stat().st_size > 100 for name in ("validation", "test") for p in streamed[name]["path"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train/metadata.parquet", "PAR1"), ("dataset_dict.json", "{"), ("dataset_dict.json", "{}"), ("dataset_dict.json", "[]"),
    ],
)  # fmt: skip
def test_a_damaged_list_of_files_or_splits_is_named(tmp_path, name, content):
    (tmp_path / "train").mkdir()
    (tmp_path / name).write_text(content)
    for load in (load_irmas, load_streamed):
        with pytest.raises(UserError, match=f"{name} is damaged"):
            load(str(tmp_path))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["file_name,label", "0.wav,kora", "1.wav,oud", "0.wav,oud"], "0.wav twice in train: put all its labels into one row"),
        (["file_name,label", ""], "metadata.csv lists no file"),
        (["\ufefffile_name;label", "0.wav;kora", "1.wav;oud"], "metadata.csv separates its columns with `;` or tabs"),
    ],
)  # fmt: skip
def test_a_table_of_files_that_would_be_misread_is_refused(tmp_path, lines, words):
    for number in range(2):
        write_audio(tmp_path / f"set/{number}.wav", number)
    (tmp_path / "set/metadata.csv").write_text("\r\n".join(lines), encoding="utf-8")
    for load in (load_irmas, load_streamed):
        with pytest.raises(UserError, match=words):
            load(str(tmp_path / "set"))


def test_a_name_in_a_table_may_be_as_long_as_it_likes(tmp_path):
    root = table(tmp_path / "set", ClassLabel(names=["kora", "oud"]), [0, 1] * 4)
    path = root / "data/train-00000-of-00001.parquet"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    for row in rows:
        row["audio"]["path"] = "é" * 150 + ".wav"
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, pyarrow.parquet.read_schema(path)), path)
    for load in (load_irmas, load_streamed):
        splits = load(str(root))
        assert sum(map(len, splits.values())) == 8 and splits["test"]["path"][0].endswith("é.wav")


def test_class_ids_whose_names_are_alike_once_normalised_are_one_class(tmp_path):
    ids = ClassLabel(names=["violin ", "violin", "kora"])
    root = table(tmp_path / "set", ids, [0, 1, 2] * 4)
    for load in (load_irmas, load_streamed):
        splits = load(str(root))
        assert splits["train"].features["instruments"].feature.names == ["violin", "kora"]
        assert labels_in(splits) == [["kora"]] * 4 + [["violin"]] * 8


def test_class_folders_that_differ_in_composition_alone_are_one_class(tmp_path):
    for form in ("NFC", "NFD"):
        for number in range(4):
            for name, seed in (("flûte", 10), ("kora", 20)):
                folder = tmp_path / "set" / unicodedata.normalize(form, name)
                path = write_audio(folder / f"{form}{number}.wav", seed=seed + number + 4 * (form == "NFD"))
                assert path.is_file()
    splits = load_irmas(tmp_path / "set", columns=Columns(label_column="label"))
    assert labels_in(splits) == [["flûte"]] * 8 + [["kora"]] * 8


def test_a_damaged_table_is_named(tmp_path):
    root = table(tmp_path / "set", Value("string"), ["kora", "oud"])
    path = table(root, Value("string"), ["kora"], split="test") / "data/test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:200])
    for load in (load_irmas, load_streamed):
        with pytest.raises(UserError, match=r"test-00000-of-00001.parquet: Parquet magic bytes not found"):
            load(str(root))


def test_recordings_that_start_anew_in_each_split_are_told_of(tmp_path, caplog):
    for split in ("train", "test"):
        root = table(tmp_path / "set", Value("string"), ["kora", "oud"] * 2, split=split, recording="1")
    assert len(load_irmas(root)["train"]) == 0 and "--recording_column none" in caplog.text


def test_recordings_that_are_nan_are_missing(tmp_path):
    """As pandas writes a column of numbers of which some are missing."""
    root = table(tmp_path / "set", Value("string"), ["kora", "oud"] * 4)
    shard = root / "data/train-00000-of-00001.parquet"
    rows = pyarrow.parquet.read_table(shard)
    numbers = pa.array([7.0, 7.0, *[float("nan")] * 6])
    pyarrow.parquet.write_table(rows.append_column("recording", numbers).append_column("song", numbers), shard)
    for load in (load_irmas, load_streamed):
        splits = load(str(root))
        for column in ("recording", "song"):
            found = [name for split in splits.values() for name in split[column][:]]
            assert len(set(found)) == 7 and found.count("7") == 2 and "nan" not in found


def test_a_recording_has_one_number_whatever_its_type_in_a_split(tmp_path):
    for split, seed, numbers in (("train", 0, [1.0, 2.0, 3.0, 4.0, 5.0, None]), ("test", 50, [1, 2, 7, 8, 7, 8])):
        root = table(tmp_path / "set", Value("string"), ["kora", "oud"] * 3, split, first_seed=seed)
        shard = root / f"data/{split}-00000-of-00001.parquet"
        rows = pyarrow.parquet.read_table(shard)
        pyarrow.parquet.write_table(rows.append_column("recording", pa.array(numbers)), shard)
    splits = load_irmas(root)
    assert set(splits["test"]["recording"]) == {"1", "2", "7", "8"}
    of_training = {*splits["train"]["recording"], *splits["validation"]["recording"]}
    assert {"3", "4", "5"} < of_training and len(of_training) == 4  # and the file of the clip without a number


def test_an_export_read_back_keeps_the_order_and_the_classes_without_clips(tmp_path):
    names = ["zither", "oud", "kora"]
    root = table(tmp_path / "set", ClassLabel(names=names), [0, 2] * 6)
    export(root, tmp_path / "export")
    for load in (load_irmas, load_streamed):
        assert load(str(tmp_path / "export"))["train"].features["instruments"].feature.names == names


@pytest.mark.parametrize("streaming", [False, True])
def test_a_recipes_data_folder_may_start_with_a_tilde(tmp_path, monkeypatch, streaming):
    monkeypatch.setenv("HOME", str(tmp_path))
    export(own_folder(tmp_path / "own"), tmp_path / "export")
    data = DataArguments(data_dir="~/export", streaming=streaming)
    splits = load_data(data)
    assert clip_names(splits["test"], data_folder(data))[0].startswith("test/test")
