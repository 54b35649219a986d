"""From one finished run to another: other classes, one class more, more clips; each a real run of two steps."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import run_irmas
from irmas_dataset.errors import UserError
from tests.irmas_dataset.test_extra import write_tones

COMMON = {
    "window_seconds": 1.0, "max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 0.01, "eval_strategy": "no",
    "save_strategy": "no", "load_best_model_at_end": False, "bootstrap_resamples": 20, "use_cpu": True, "bf16": False,
    "disable_tqdm": True,
}  # fmt: skip
CNN = {"architecture": "cnn", "model_config": {"architecture": "spectrogram_image"}}
MFCC = {"architecture": "mfcc", "model_config": {"filters": [2, 4], "dense_sizes": [4]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with recipes, and music of eleven classes, of some other ones, and of one more than those."""
    path = tmp_path_factory.mktemp("transfer")
    codes = ("cel", "cla", "flu", "gac", "gel", "org", "pia", "sax", "tru", "vio", "voi")
    write_tones(
        path / "irmas",
        "train",
        {code: [200 + 50 * row + step for step in (0, 1, 2, 3)] for row, code in enumerate(codes)},
    )
    others = {"bassoon": [110, 112, 114, 116], "flu": [500, 503, 506, 509]}
    write_tones(path / "winds", "train", others)
    write_tones(path / "more", "train", others | {"alphorn": [60, 63, 66, 69]})
    write_tones(path / "made", "train", {"bassoon": [120, 121, 122]})
    for name, recipe in (("cnn", CNN), ("mfcc", MFCC)):
        (path / f"{name}.yaml").write_text(yaml.safe_dump(COMMON | recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setenv("HF_DATASETS_CACHE", str(path / "cache"))
        train("cnn", "first", "--data_dir", "irmas")
        yield path


def weights(run: str) -> dict[str, torch.Tensor]:
    return load_file(Path("runs", run, "model.safetensors"))


def train(recipe: str, name: str, *options: str) -> dict:
    """Run a recipe to its end and return its results."""
    run_irmas.main([f"{recipe}.yaml", "--output_dir", f"runs/{name}", *options])
    return json.loads(Path("runs", name, "results.json").read_text())


@pytest.mark.slow
def test_a_run_of_eleven_classes_goes_on_with_the_classes_of_another_folder(folder):
    options = ["--model_name_or_path", "runs/first", "--data_dir", "winds"]
    results = train("cnn", "tuned", *options, "--extra_train_dir", "made")
    assert results["dataset"]["classes"] == ["bassoon", "flu"] and results["dataset"]["extra_train_clips"] == 3
    card = Path("runs/tuned/README.md").read_text()
    assert "Started from the run `first`." in card and "3 of the training clips come from a folder beside" in card
    train("cnn", "probe", *options, "--freeze", "backbone")
    first, tuned, probe = weights("first"), weights("tuned"), weights("probe")
    head = [name for name, tensor in first.items() if tensor.shape != tuned[name].shape]
    assert len(head) == 2 and all(tuned[name].shape[0] == 2 and first[name].shape[0] == 11 for name in head)
    backbone = first.keys() - set(head)
    assert all(torch.equal(first[name], probe[name]) for name in backbone)
    assert not all(torch.equal(first[name], tuned[name]) for name in backbone)


@pytest.mark.slow
def test_the_head_starts_from_the_row_of_the_same_label(folder):
    options = ["--model_name_or_path", "runs/first", "--data_dir", "winds", "--freeze", "backbone"]
    train("cnn", "hardly", *options, "--learning_rate", "1e-9")
    first, started = weights("first"), weights("hardly")
    (name,) = (name for name, tensor in first.items() if tensor.shape != started[name].shape and tensor.ndim == 2)
    torch.testing.assert_close(started[name][1], first[name][2], rtol=0, atol=1e-6)  # flute
    assert (started[name][0] - first[name]).abs().amax(dim=1).min() > 1e-3  # bassoon is no instrument of the first


@pytest.mark.slow
def test_one_class_more_leaves_the_other_sub_networks_as_they_were(folder):
    train("mfcc", "two", "--data_dir", "winds")
    options = ["--model_name_or_path", "runs/two", "--freeze", "known_labels"]
    results = train("mfcc", "three", *options, "--data_dir", "more")
    assert results["dataset"]["classes"] == ["alphorn", "bassoon", "flu"]
    run_irmas.main(["evaluate", "runs/three", "--output_dir", "again"])
    assert json.loads(Path("again/results.json").read_text())["test"]["lrap"] == results["test"]["lrap"]
    two, three = weights("two"), weights("three")
    for old, new in ((0, 1), (1, 2)):  # bassoon, flute: their places have moved
        for name, tensor in two.items():
            if name.startswith(f"subnetworks.{old}."):
                moved = name.replace(f"subnetworks.{old}.", f"subnetworks.{new}.")
                assert torch.equal(tensor, three[moved]), name  # the statistics of batch normalisation too
    assert three["subnetworks.0.input_norm.num_batches_tracked"] == 2
    train("mfcc", "on", "--model_name_or_path", "runs/three", "--data_dir", "more")
    on = weights("on")
    assert not torch.equal(on["subnetworks.1.output.weight"], three["subnetworks.1.output.weight"]), (
        "nothing is frozen now"
    )


@pytest.mark.slow
def test_what_adds_no_class_is_refused(folder):
    train("mfcc", "two", "--data_dir", "winds")
    options = ["--model_name_or_path", "runs/two", "--freeze", "known_labels"]
    with pytest.raises(UserError, match="nothing to train"):
        train("mfcc", "no", *options, "--data_dir", "winds")
    with pytest.raises(UserError, match="has no bassoon"):
        train("mfcc", "no", *options, "--data_dir", "irmas")
    with pytest.raises(UserError, match="needs one sub-network per class"):
        train("cnn", "no", "--model_name_or_path", "runs/first", "--freeze", "known_labels", "--data_dir", "more")
    with pytest.raises(UserError, match="name its run"):
        train("mfcc", "no", "--freeze", "known_labels", "--data_dir", "more")
