"""Each augmentation does what its name says, and only that."""

import random

import numpy as np
import pytest
import torch

from irmas_dataset.errors import UserError
from irmas_recipe.training import augmentation
from irmas_recipe.training.augmentation import Augmentation
from irmas_recipe.training.fields import AugmentationArguments

RATE = 16000


@pytest.fixture(autouse=True)
def seeded():
    """The same draws in every run: a batch's partners can be all of its own classes, once in a dozen times."""
    torch.manual_seed(0)


@pytest.fixture
def waveforms():
    return 0.1 * torch.randn(64, 4000, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels():
    return torch.nn.functional.one_hot(torch.arange(64) % 11, 11).float()


def level_db(waveforms):
    return 20 * torch.log10(augmentation.root_mean_square(waveforms)).squeeze(1)


def test_nothing_happens_by_default(waveforms, labels):
    nothing = Augmentation(AugmentationArguments(), RATE, window_samples=4000)
    changed, same_labels = nothing.waveforms(waveforms, labels)
    features = torch.randn(2, 30, 16)
    assert changed is waveforms and same_labels is labels and nothing.features(features) is features


def test_gain_stays_between_its_bounds(waveforms):
    change = level_db(augmentation.gain(waveforms, -6.0, 3.0)) - level_db(waveforms)
    assert change.min() >= -6.001 and change.max() <= 3.001 and change.std() > 1


def test_white_noise_has_the_snr_it_was_asked_for(waveforms):
    noise = augmentation.add_white_noise(waveforms, 1.0, 10.0, 20.0) - waveforms
    snr = level_db(waveforms) - level_db(noise)
    assert snr.min() > 9.5 and snr.max() < 20.5
    assert torch.equal(augmentation.add_white_noise(waveforms, 0.0, 10.0, 20.0), waveforms)


def test_polarity_flips_a_share_of_the_clips(waveforms):
    flipped = augmentation.invert_polarity(waveforms, 0.5)
    sign = flipped[:, 0] / waveforms[:, 0]
    assert torch.equal(sign.abs(), torch.ones(64)) and 10 < (sign < 0).sum() < 54


def test_time_shift_rolls_by_at_most_its_limit():
    impulses = torch.zeros(64, 100)
    impulses[:, 50] = 1
    position = augmentation.time_shift(impulses, 10).argmax(dim=1)
    assert position.min() >= 40 and position.max() <= 60 and len(position.unique()) > 5


def test_a_random_window_is_a_piece_of_its_clip():
    ramp = torch.arange(100.0).repeat(32, 1)
    window = augmentation.random_window(ramp, 30)
    assert window.shape == (32, 30) and torch.equal(window - window[:, :1], torch.arange(30.0).repeat(32, 1))
    assert len(window[:, 0].unique()) > 5


def test_a_random_window_of_a_short_clip_lies_within_its_own_samples():
    lengths = torch.tensor([100, 45, 30, 12]).repeat(50)
    ramp = torch.where(torch.arange(100) < lengths[:, None], torch.arange(100.0) + 1, 0.0)
    window = augmentation.random_window(ramp, 30, lengths)
    torch.manual_seed(1)
    whole = augmentation.random_window(ramp, 30)
    torch.manual_seed(1)
    assert torch.equal(augmentation.random_window(ramp, 30, torch.full((200,), 100)), whole), "as without lengths"
    assert ((window > 0).sum(dim=1) == lengths.clamp_max(30)).all()
    starts = window[:, 0].view(50, 4) - 1
    assert [len(column.unique()) for column in starts.T][2:] == [1, 1]
    assert starts[:, 0].max() > 20 and 5 < starts[:, 1].max() <= 15


def test_mixing_unites_the_labels_of_what_it_sums(waveforms, labels):
    mixture, united = augmentation.mix(waveforms, labels, 1.0, max_clips=3, max_gain_db=3.0)
    counts = united.sum(dim=1)
    assert counts.min() >= 1 and counts.max() == 3 and (counts > 1).float().mean() > 0.8
    assert torch.all(united >= labels), "a clip keeps its own label"
    changed = (mixture != waveforms).any(dim=1)
    assert torch.equal(changed, counts > 1), "labels change exactly where the sound does"
    assert torch.allclose(level_db(mixture), level_db(waveforms), atol=1e-3)


def test_a_mixture_is_the_sum_of_its_clips():
    tones = torch.stack([torch.sin(torch.arange(4000) * 0.01 * (i + 1)) for i in range(4)])
    mixture, united = augmentation.mix(tones, torch.eye(4), 1.0, max_clips=2, max_gain_db=0.0)
    for row in range(4):
        part = torch.linalg.lstsq(tones.T, mixture[row]).solution
        assert torch.equal((part.abs() > 1e-3).float(), united[row])


def test_clips_of_one_class_are_never_mixed(waveforms):
    same = torch.zeros(64, 11)
    same[:, 3] = 1
    mixture, united = augmentation.mix(waveforms, same, 1.0, max_clips=5, max_gain_db=3.0)
    assert torch.equal(mixture, waveforms) and torch.equal(united, same)


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.85, 0.05, 0.05, 0.05], [1 / 11] * 11])
def test_the_share_of_mixtures_is_what_was_asked_for_whatever_the_classes(shares):
    torch.manual_seed(0)
    mixed = clips = 0
    for _ in range(100):
        labels = torch.nn.functional.one_hot(torch.multinomial(torch.tensor(shares), 32, replacement=True), len(shares))
        _, united = augmentation.mix(torch.randn(32, 50), labels.float(), 0.5, max_clips=3, max_gain_db=3.0)
        mixed, clips = mixed + int((united.sum(dim=1) > 1).sum()), clips + 32
    assert mixed / clips == pytest.approx(0.5, abs=0.03)


def test_silence_is_neither_mixed_nor_a_partner(waveforms, labels):
    waveforms[::2] = 0
    mixture, united = augmentation.mix(waveforms, labels, 1.0, max_clips=3, max_gain_db=3.0)
    assert torch.equal(united[::2], labels[::2]) and not mixture[::2].any()
    alone = torch.zeros_like(waveforms)
    alone[0] = 1
    assert torch.equal(augmentation.mix(alone, labels, 1.0, max_clips=3, max_gain_db=3.0)[1], labels)


def test_every_clip_that_can_be_a_partner_is_one_equally_often():
    labels = torch.eye(2)[torch.tensor([0, 0, 1, 1, 1, 1])]
    partners = [augmentation.mix(torch.eye(6), labels, 1.0, 2, 0.0)[0] > 0 for _ in range(2000)]
    times = torch.stack(partners).sum(dim=0)[:2, 2:]
    assert times.sum() == 4000 and times.min() > 400 and times.max() < 600


def test_a_clip_without_labels_is_mixed_but_not_with_itself():
    labels = torch.tensor([[0.0, 0], [1, 1], [1, 1]])
    for _ in range(20):
        mixture, united = augmentation.mix(torch.eye(3), labels, 1.0, 2, 0.0)
        assert united.tolist() == [[1, 1]] * 3 and (mixture[0] > 0).sum() == 2


def test_no_clip_is_twice_in_a_mixture():
    labels = torch.tensor([[1.0, 0], [0, 0], [-1, -1], [0, 0]])  # what has no label could come again and again
    for _ in range(50):
        mixture, _ = augmentation.mix(torch.eye(4), labels, 1.0, max_clips=5, max_gain_db=0.0)
        parts = mixture / mixture.diagonal()[:, None]
        assert torch.all((parts == 0) | (parts == 1))


def test_a_clip_that_the_audit_calls_silent_is_mixed_with_none(waveforms, labels):
    waveforms[::2] = 1e-5 * waveforms[::2]
    mixture, united = augmentation.mix(waveforms, labels, 1.0, max_clips=3, max_gain_db=3.0)
    assert torch.equal(mixture[::2], waveforms[::2]) and torch.equal(united[::2], labels[::2])


def test_every_window_of_a_clip_is_as_likely_as_any_other():
    torch.manual_seed(0)
    ramp = torch.arange(100.0).repeat(40_000, 1)
    starts = augmentation.random_window(ramp, 30, torch.full((40_000,), 79))[:, 0].long()
    counts = torch.bincount(starts, minlength=50).float()
    assert len(counts) == 50 and (counts / 800 - 1).abs().max() < 0.2


def test_silence_stays_finite(labels):
    everything = AugmentationArguments(
        mix_probability=1.0, noise_probability=1.0, min_gain_db=-6, max_gain_db=6, max_time_shift_seconds=0.01
    )
    mixture, _ = Augmentation(everything, RATE, 4000).waveforms(torch.zeros(64, 4000), labels)
    assert torch.isfinite(mixture).all()


@pytest.mark.parametrize("flag", ["max_time_mask_frames", "max_frequency_mask_bins"])
def test_masks_that_may_be_longer_than_the_features_are_refused(flag):
    masks = {"time_masks": 1, "max_time_mask_frames": 30, "frequency_masks": 1, "max_frequency_mask_bins": 20}
    features = torch.rand(2, 30, 20)
    assert (Augmentation(AugmentationArguments(**masks), RATE, 4000).features(features) == features).any()
    arguments = AugmentationArguments(**masks | {flag: 31})
    with pytest.raises(UserError, match=f"--{flag} 31 would often mask everything: a window has [23]0 of them"):
        Augmentation(arguments, RATE, 4000).features(features)


@pytest.mark.parametrize(("shape", "time_axis"), [((8, 100, 32), -2), ((8, 1, 32, 100), -1)])
def test_masks_cover_whole_frames_and_bands(shape, time_axis):
    arguments = AugmentationArguments(
        time_masks=1, max_time_mask_frames=40, frequency_masks=1, max_frequency_mask_bins=10
    )
    levels = torch.arange(32.0)[None, :, None] if time_axis == -1 else torch.arange(32.0)  # each band its own
    features = 100 * levels + torch.randn(shape, dtype=torch.float64)
    masked = Augmentation(arguments, RATE, 4000, time_axis).features(features)
    mean = features.mean(dim=(0, time_axis), keepdim=True).expand(shape)
    image = (masked == mean).reshape(8, *shape[-2:])
    assert torch.equal(masked.where(masked != mean, features), features), "what is not masked stays as it is"
    image = image if time_axis == -2 else image.transpose(1, 2)
    frames, bins = image.all(dim=2).sum(dim=1), image.all(dim=1).sum(dim=1)
    assert frames.max() <= 40 and bins.max() <= 10 and frames.sum() > 0 and bins.sum() > 0
    assert torch.equal(image.sum(dim=(1, 2)), frames * 32 + bins * 100 - frames * bins)


def test_audiomentations_by_name():
    transform = augmentation.CpuTransform([{"Gain": {"min_gain_db": 6.0, "max_gain_db": 6.0, "p": 1.0}}], RATE)
    assert transform(torch.full((100,), 0.1).numpy(), [0]).mean() == pytest.approx(0.1995, abs=1e-3)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("Gain", "must read"),
        ({"NoSuchTransform": {}}, "no transform `NoSuchTransform`"),
        ({"Gain": {"no_such_parameter": 1}}, "Gain cannot work with .*no_such_parameter"),
        ({"Gain": {"min_gain_db": 6, "max_gain_db": 0, "p": 0.01}}, "Gain cannot work with "),
        ({"AddBackgroundNoise": {"sounds_path": "/nowhere", "p": 0.01}}, "AddBackgroundNoise cannot work with "),
        (
            {"ApplyImpulseResponse": {"ir_path": "/nowhere.wav", "p": 0.01}},
            "ApplyImpulseResponse cannot work with .*nowhere",
        ),
        ({"LowPassFilter": {"min_cutoff_freq": "low", "p": 0.01}}, "LowPassFilter cannot work with "),
        ({"OneOf": {"transforms": [{"Gain": {}}]}}, "OneOf cannot work with "),
    ],
)
def test_an_audiomentation_that_cannot_work_is_refused_when_it_is_made(wrong, said):
    with pytest.raises(ValueError, match=said):
        augmentation.CpuTransform([wrong], RATE)


def test_audiomentations_depend_on_the_seed_alone_and_leave_other_generators_as_they_are():
    transform = augmentation.CpuTransform([{"Gain": {"min_gain_db": -20.0, "max_gain_db": 6.0, "p": 1.0}}], RATE)
    samples = torch.full((100,), 0.1).numpy()
    before = random.getstate(), np.random.get_state()[1].tolist()
    gains = [float(transform(samples, [7, epoch, clip]).mean()) for epoch in range(3) for clip in range(3)]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    random.random()
    assert [float(transform(samples, [7, epoch, clip]).mean()) for epoch in range(3) for clip in range(3)] == gains
    assert len(set(gains)) == 9
