"""`predict` makes features in batches; its answers are those of the saved folder's own pipeline, which asks the extractor."""

import copy

import numpy as np
import pytest
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, pipeline

from irmas_dataset.errors import UserError
from irmas_recipe.models.pipeline.attach import attach_pipeline
from irmas_recipe.training.features import BATCHED
from irmas_recipe.training.head import output_layer
from irmas_recipe.training.recogniser import build_recogniser, load_recogniser
from tests.tiny import BLOCKS, build, label_options, save
from tests.tiny_speech import CONFIGURATIONS
from tests.training.test_features import OwnExtractor

RATE = 16_000
THEIRS = ("ast", "encoder", "encoder-of-clap", *CONFIGURATIONS)
"""Models whose extractor is transformers' own; ours make batches themselves."""
LOUDER = {"encoder-of-clap": 30, "sew": 10, "sew-d": 10, "whisper": 30}
"""How many times the weights of an output layer are made, so that scores of different sounds differ."""
WINDOWS = (None, 0.5, 0.333, 0.0511)
TOLERANCE = 1e-3


def shaken(name: str, **extractor_options):
    """Return a tiny model that tells sounds apart, which hears 1 s every 0.5 s, and its extractor."""
    model, extractor = build(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        output_layer(model)[1].weight *= LOUDER.get(name, 1)
    model.config.update({"window_seconds": 1.0, "hop_seconds": 0.5})
    for option, value in extractor_options.items():
        setattr(extractor, option, value)
    return model, extractor


def sounds() -> list[dict]:
    """Return sounds of many windows, of less than one, of a few samples, and silence."""
    random = np.random.default_rng(0)
    times = np.arange(round(2.3 * RATE)) / RATE
    long = 0.3 * np.sin(2 * np.pi * 440 * times) * (times % 1) + 0.05 * random.standard_normal(len(times))
    arrays = (long, long[: RATE // 2], long[:100], np.zeros(RATE))
    return [{"array": array.astype(np.float32), "sampling_rate": RATE} for array in arrays]


def scores(recognise, window_seconds: float | None = None) -> np.ndarray:
    """Return the scores (sounds, labels)."""
    options = {"top_k": None} | ({"window_seconds": window_seconds} if window_seconds else {})
    heard = [{entry["label"]: entry["score"] for entry in recognise(sound, **options)} for sound in sounds()]
    return np.array([[of_one[label] for label in recognise.labels] for of_one in heard])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", THEIRS)
def test_answers_are_those_of_the_folders_own_pipeline(tmp_path, name, masked):
    options = {"return_attention_mask": True} if masked and hasattr(build(name)[1], "return_attention_mask") else {}
    if masked and not options:
        pytest.skip("its extractor has no mask")
    folder = save(*shaken(name, **options), tmp_path / "model")
    attach_pipeline(folder)
    ours = load_recogniser(str(folder), device="cpu")
    theirs = pipeline("instrument-recognition", model=str(folder), trust_remote_code=True, device="cpu")
    assert theirs.features is None and type(ours.features) is BATCHED[type(ours.feature_extractor)]
    for precision in (torch.float32, torch.bfloat16):
        for recognise in (ours, theirs):
            recognise.model = copy.deepcopy(recognise.model).to(precision)
        for window_seconds in WINDOWS:
            expected = scores(theirs, window_seconds)
            assert np.ptp(expected, axis=0).max() > 2 * TOLERANCE, "or equality would say nothing"
            np.testing.assert_allclose(scores(ours, window_seconds), expected, rtol=0, atol=TOLERANCE)


def test_an_ast_of_another_rate_is_asked_through_its_extractor():
    config = ASTConfig(**BLOCKS, max_length=98, window_seconds=0.7, **label_options())
    model, extractor = (
        ASTForAudioClassification(config).eval(),
        ASTFeatureExtractor(max_length=98, sampling_rate=22_050),
    )
    assert np.isfinite(scores(build_recogniser("ast", model, extractor, device="cpu"))).all()


def test_an_extractor_that_extends_one_gives_the_model_all_that_it_makes():
    model, _ = shaken("wav2vec2")
    recognise = build_recogniser("own", model, OwnExtractor(return_attention_mask=True), device="cpu")
    given = []
    model.register_forward_pre_hook(lambda _, args, kwargs: given.append(set(kwargs)), with_kwargs=True)
    scores(recognise)
    assert given and all({"input_values", "attention_mask"} <= names for names in given)


@pytest.mark.parametrize(("name", "window_seconds"), [("ast", 0.02), ("sew", 0.02), ("wav2vec2", 0.005)])
def test_a_window_below_a_models_reach_is_refused_in_one_sentence(name, window_seconds):
    with pytest.raises(
        UserError, match=f"--window_seconds {window_seconds} is too short for {name}: give a longer one"
    ):
        build_recogniser(name, *shaken(name), device="cpu", window_seconds=window_seconds)
