"""WaveGAN against its paper's definitions, and a training that is interrupted and goes on."""

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from irmas_dataset.errors import UserError
from irmas_dataset.own_folder import list_own_folder
from irmas_recipe.baselines.wavegan.main import WaveganTrainer
from irmas_recipe.baselines.wavegan.networks import (
    Discriminator,
    Generator,
    channel_counts,
    discriminator_loss,
    gradient_penalty,
    shuffle_phase,
)
from run_irmas import wavegan as main


def test_the_networks_have_the_papers_shapes():
    """Table 3 and 4 (16,384 samples, d = 64): 5 layers, 1024 channels of 16 samples at the inner end."""
    assert channel_counts(16_384, 64) == [64, 128, 256, 512, 1024]
    assert channel_counts(65_536, 64)[-1] == 2048
    with torch.device("meta"):
        generator, discriminator = Generator(), Discriminator()
    assert sum(p.numel() for p in generator.parameters()) == (
        100 * 16_384
        + 16_384
        + sum(25 * i * o + o for i, o in ((1024, 512), (512, 256), (256, 128), (128, 64), (64, 1)))
    )
    assert discriminator.dense.in_features == 16_384
    small = Generator(1024, 4)
    waveforms = small(torch.rand(3, 100) * 2 - 1)
    assert waveforms.shape == (3, 1024)
    assert waveforms.abs().max() <= 1
    assert Discriminator(1024, 4)(waveforms).shape == (3,)


def test_every_length_but_a_power_of_four_is_refused():
    for samples in (0, 16, 1000, 32_768):
        with pytest.raises(ValueError, match="such as 16384"):
            channel_counts(samples, 64)


def test_phase_shuffle_shifts_by_reflection():
    hidden = torch.arange(8.0).repeat(200, 2, 1)
    shuffled = shuffle_phase(hidden, 2, torch.Generator().manual_seed(0))
    wanted = {tuple(np.pad(np.arange(8), 2, mode="reflect")[2 + shift : 10 + shift]) for shift in range(-2, 3)}
    assert {tuple(int(value) for value in row) for row in shuffled[:, 0]} == wanted
    assert torch.equal(shuffled[:, 0], shuffled[:, 1])  # all channels of an example together
    assert shuffle_phase(hidden, 0) is hidden


def test_the_penalty_is_that_of_a_known_slope():
    """A linear critic has the same gradient everywhere: its penalty is (|w| - 1)^2."""
    weight = torch.tensor([3.0, 4.0])
    real, generated = torch.rand(6, 2), torch.rand(6, 2)
    assert gradient_penalty(lambda x: x @ weight, real, generated).item() == pytest.approx((5 - 1) ** 2)
    loss = discriminator_loss(lambda x: x @ weight, real, generated)
    distance = (generated @ weight).mean() - (real @ weight).mean()
    assert loss.item() == pytest.approx(float(distance) + 10 * 16, rel=1e-5)


def test_the_penalty_is_taken_between_real_and_generated():
    """The gradient of |x|^2 / 2 is x itself: at points between two ends of length 2 and 4 it is between those."""
    real, generated = torch.zeros(500, 3), torch.zeros(500, 3)
    real[:, 0], generated[:, 0] = 2, 4
    penalty = gradient_penalty(lambda x: x.square().sum(1) / 2, real, generated, torch.Generator().manual_seed(0))
    assert penalty.item() == pytest.approx(13 / 3, rel=0.05)  # the mean of (u - 1)^2 for u uniform in [2, 4]


def test_the_penalty_trains_the_critic():
    critic = Discriminator(256, 2)
    gradient_penalty(critic, torch.rand(4, 256), torch.rand(4, 256)).backward()
    assert critic.layers[0].weight.grad.abs().sum() > 0


def tiny(seed: int = 0) -> WaveganTrainer:
    seconds = np.arange(4000) / 16_000
    clips = [(2**14 * np.sin(2 * np.pi * hz * seconds)).astype(np.int16) for hz in (400, 500, 600)]
    return WaveganTrainer(clips, 1024, 4, 4, torch.device("cpu"), seed)


def test_real_batches_are_cuts_of_the_clips():
    trainer = tiny()
    batch = trainer.real_batch()
    assert batch.shape == (4, 1024)
    for cut in batch:
        whole = [np.lib.stride_tricks.sliding_window_view(clip, 1024) for clip in trainer.clips]
        assert any((np.abs(windows - cut.numpy() * 2**15) < 1).all(axis=1).any() for windows in whole)


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path):
    straight = tiny()
    for _ in range(4):
        straight.train_step()
    first = tiny()
    for _ in range(2):
        first.train_step()
    first.save(tmp_path / "checkpoint.pt")
    second = tiny(seed=9)
    second.load(tmp_path / "checkpoint.pt")
    for _ in range(2):
        second.train_step()
    assert second.step == 4
    for name, weight in straight.generator.state_dict().items():
        assert torch.equal(weight, second.generator.state_dict()[name])
    np.testing.assert_array_equal(straight.generate(3, seed=1), second.generate(3, seed=1))


def test_a_damaged_checkpoint_is_named_with_the_way_out(tmp_path):
    trainer, path = tiny(), tmp_path / "checkpoint.pt"
    trainer.save(path)
    for damaged in (
        path.read_bytes()[:-500],
        path.read_bytes()[:2000],
        b"no weights",
        b"\x80\x02X\x01\x00\x00\x00\xff.",
        b"",
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"checkpoint\.pt cannot be read \(.+\): remove it to start"):
            trainer.load(path)


@pytest.fixture
def common(tmp_path) -> list[str]:
    """Six small files of two classes, and the command line of a tiny WaveGAN on them."""
    for recording in range(6):
        path = tmp_path / "music" / "train" / f"class{recording % 2}" / f"{recording}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.5 * np.sin(np.arange(6000) * (0.1 + 0.01 * recording)), 16_000)
    (tmp_path / "tiny.yaml").write_text("system: wavegan\nsamples: 1024\nmodel_size: 4\nbatch_size: 2\nsave_steps: 1\n")
    options = ["--data_dir", str(tmp_path / "music"), "--output_dir", str(tmp_path / "out"), "--generate", "3"]
    return [str(tmp_path / "tiny.yaml"), *options]


def test_from_files_to_generated_clips(tmp_path, common):
    main([*common, "--instrument", "class1", "--steps", "1"])
    main([*common, "--instrument", "class1", "--steps", "2"])
    samples = tmp_path / "out" / "class1" / "samples"
    assert {path.name for path in samples.iterdir()} == {f"step-00000{n}.{x}" for n in (1, 2) for x in ("wav", "png")}
    with Image.open(samples / "step-000002.png") as picture:
        assert picture.width > 1000
    generated = sorted((tmp_path / "out" / "train" / "class1").glob("*.wav"))
    assert len(generated) == 3
    assert soundfile.info(generated[0]).frames == 1024
    with pytest.raises(UserError, match="class1 is of 2 steps: give --steps 2 or more"):
        main([*common, "--instrument", "class1", "--steps", "1"])
    with pytest.raises(UserError, match="a training with model_size 4"):
        main([*common, "--model_size", "8", "--instrument", "class1", "--steps", "3"])
    with pytest.raises(UserError, match="--instrument harp is no class"):
        main([*common, "--instrument", "harp"])
    with pytest.raises(UserError, match="--save_steps must be at least 1"):
        main([*common, "--instrument", "class1", "--save_steps", "0"])
    with pytest.raises(UserError, match=r"--samples: .* not 1000"):
        main([*common, "--instrument", "class1", "--samples", "1000"])


def test_clips_of_a_class_whose_name_no_folder_can_have_are_read_as_that_class(tmp_path, common):
    (tmp_path / "music/train/class1").rename(tmp_path / "music/train/AC%2FDC")
    main([*common, "--instrument", "AC/DC", "--steps", "1"])
    assert list_own_folder(tmp_path / "out").classes == ("AC/DC",)


def test_a_killed_training_goes_on_to_the_same_weights_and_clips(tmp_path, common, monkeypatch):
    options = [*common, "--instrument", "class0", "--steps", "5", "--save_steps", "2"]
    main([*options, "--output_dir", str(tmp_path / "unbroken")])
    take_step = WaveganTrainer.train_step

    def until_killed(trainer):
        if trainer.step == 3:  # after the checkpoint of step 2
            raise KeyboardInterrupt
        return take_step(trainer)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(WaveganTrainer, "train_step", until_killed)
        main([*options, "--output_dir", str(tmp_path / "killed")])
    main([*options, "--output_dir", str(tmp_path / "killed")])
    unbroken, killed = (torch.load(tmp_path / name / "class0/checkpoint.pt") for name in ("unbroken", "killed"))
    assert killed["step"] == 5
    for network in ("generator", "discriminator"):
        for name, weight in unbroken[network].items():
            assert torch.equal(weight, killed[network][name]), name
    for file in sorted((tmp_path / "unbroken/train/class0").iterdir()):
        assert file.read_bytes() == (tmp_path / "killed/train/class0" / file.name).read_bytes()
    for name in ("step-000002.wav", "step-000004.wav", "step-000005.wav"):
        paths = [tmp_path / run / "class0/samples" / name for run in ("unbroken", "killed")]
        assert paths[0].read_bytes() == paths[1].read_bytes()
