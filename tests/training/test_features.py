"""Features of a batch on the device are those of transformers' own extractors, clip by clip."""

import pytest
import torch
from transformers import (
    ClapFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from irmas_dataset.errors import UserError
from irmas_recipe.models.beats import BeatsFeatureExtractor
from irmas_recipe.models.passt import PasstFeatureExtractor
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from irmas_recipe.training.features import OneByOne, device_features, longest_seconds, time_axis
from irmas_recipe.training.window import fit_window
from tests.tiny import build


class OwnExtractor(Wav2Vec2FeatureExtractor):
    """One that may compute something else than its parent."""


EXTRACTORS = {
    "waveform": Wav2Vec2FeatureExtractor(),
    "waveform as it is": Wav2Vec2FeatureExtractor(do_normalize=False),
    "seamless": SeamlessM4TFeatureExtractor(),
    "whisper": WhisperFeatureExtractor(chunk_length=4),
    "whisper of 128 bands": WhisperFeatureExtractor(feature_size=128, chunk_length=2),
    "clap": ClapFeatureExtractor(truncation="rand_trunc", max_length_s=4),
    "clap with fusion": ClapFeatureExtractor(max_length_s=4),
    "clap, repeated and cut": ClapFeatureExtractor(padding="repeat", max_length_s=4),
    "clap, padded": ClapFeatureExtractor(padding="pad", max_length_s=4),
    "another": OwnExtractor(),
}


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize("seconds", [1.0, 1.011, 2.0])  # 1.011 s leave half a row of seamless' frames
def test_features_of_a_batch_are_the_extractors(name, seconds):
    extractor = EXTRACTORS[name]
    waveforms = 0.1 * torch.randn(
        3, round(seconds * extractor.sampling_rate), generator=torch.Generator().manual_seed(0)
    )
    waveforms[1] *= 1e-3
    if name != "seamless":  # whose normalisation makes rounding errors of silence visible
        waveforms[2] = 0
    ours = device_features(extractor)(waveforms)
    given = extractor(list(waveforms.numpy()), sampling_rate=extractor.sampling_rate, return_tensors="pt")
    theirs = given[extractor.model_input_names[0]]
    if name == "seamless":  # a last row that is marked as padding is left out
        assert (
            given["attention_mask"][:, : ours.shape[1]].all() and not given["attention_mask"][:, ours.shape[1] :].any()
        )
        theirs = theirs[:, : ours.shape[1]]
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs.float(), atol=1e-3, rtol=1e-4)


def test_an_extractor_that_extends_one_is_called_as_it_is():
    assert isinstance(device_features(EXTRACTORS["another"]), OneByOne)


def test_what_an_extractor_does_to_time_is_known():
    assert time_axis(EXTRACTORS["waveform"]) is None
    assert (time_axis(EXTRACTORS["whisper"]), time_axis(EXTRACTORS["seamless"])) == (-1, -2)
    assert longest_seconds(EXTRACTORS["waveform"]) is None
    assert (longest_seconds(EXTRACTORS["whisper"]), longest_seconds(EXTRACTORS["clap"])) == (4, 4)


@pytest.mark.parametrize(
    ("architecture", "extractor"),
    [("passt", PasstFeatureExtractor(max_frames=200)), ("beats", BeatsFeatureExtractor(max_length_seconds=2))],
)
def test_a_window_of_which_only_the_beginning_would_be_heard_is_refused(architecture, extractor, caplog):
    model, _ = build(architecture)
    fit_window(model, extractor, 2.0)
    assert not caplog.text, "a shorter window is not filled up"
    with pytest.raises(UserError, match=r"--window_seconds 3: .* hears 2[.\d]* s at a time; shorten the window"):
        fit_window(model, extractor, 3.0)
    recognise = InstrumentRecognitionPipeline(model=model, feature_extractor=extractor)
    assert recognise.window_and_hop(2.0, None) == (2.0, 1.0)
    with pytest.raises(ValueError, match=r"longer than the 2\.00 s that the model looks at"):
        recognise.window_and_hop(3.0, None)
