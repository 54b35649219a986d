"""Labels that are not known take no part in the loss, its gradient, mixing, thresholds and confidences."""

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from irmas_recipe.training.augmentation import mix, unite
from irmas_recipe.training.clips import collate, united
from irmas_recipe.training.head import fit_output_layer
from irmas_recipe.training.loss import multi_label_loss
from irmas_recipe.training.thresholds import fit_slopes, tune_thresholds
from irmas_recipe.training.trainer import InstrumentTrainer
from tests.training.test_trainer import Noise, build, first_logs


class PartlyKnown(Noise):
    """Clips of which nobody has judged the second class, and some not the first."""

    def __init__(self):
        super().__init__()
        self.labels[:, 1] = -1
        self.labels[::3, 0] = -1


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 5, generator=generator, requires_grad=True)
    labels = torch.randint(-1, 2, (8, 5), generator=generator).float()
    return logits, labels


def test_the_loss_is_the_cross_entropy_of_what_is_known(batch):
    logits, labels = batch
    known = labels >= 0
    expected = binary_cross_entropy_with_logits(logits[known], labels[known], reduction="sum") / labels.numel()
    loss = multi_label_loss(logits, labels)
    assert loss.item() == pytest.approx(expected.item())
    loss.backward()
    assert (logits.grad[~known] == 0).all() and (logits.grad[known] != 0).all()
    everything = labels.clamp_min(0)
    assert multi_label_loss(logits, everything).item() == pytest.approx(
        binary_cross_entropy_with_logits(logits, everything).item()
    )


def test_a_mask_can_be_given_and_halves_of_a_batch_average_to_it(batch):
    logits, labels = batch
    whole = multi_label_loss(logits, labels.clamp_min(0), labels >= 0)
    assert whole.item() == pytest.approx(multi_label_loss(logits, labels).item())
    halves = [multi_label_loss(logits[rows], labels[rows]) for rows in (slice(0, 4), slice(4, 8))]
    assert sum(halves).item() / 2 == pytest.approx(whole.item())


def test_a_presence_is_known_in_a_mixture_and_an_absence_only_where_both_are():
    one = torch.tensor([[1.0, 1, 1, 0, 0, -1]])
    other = torch.tensor([[1.0, 0, -1, 0, -1, -1]])
    expected = [[1, 1, 1, 0, -1, -1]]
    assert unite(one, other).tolist() == unite(other, one).tolist() == expected
    assert united(np.concatenate([one, other]), [(0, 1), (1,)]).tolist() == [expected[0], other[0].tolist()]


def test_clips_are_mixed_when_no_class_is_known_in_both():
    torch.manual_seed(0)
    waveforms = torch.randn(2, 1000)
    labels = torch.tensor([[1.0, -1, 0], [-1, 1, 0]])
    mixture, labels_of_mixtures = mix(waveforms, labels, probability=1.0, max_clips=2, max_gain_db=0)
    assert labels_of_mixtures.tolist() == [[1, 1, 0]] * 2 and not torch.allclose(mixture, waveforms)
    _, same = mix(waveforms, torch.tensor([[1.0, -1, 0], [1, 1, 0]]), probability=1.0, max_clips=2, max_gain_db=0)
    assert same.tolist() == [[1, -1, 0], [1, 1, 0]]


def test_thresholds_and_slopes_do_not_hear_what_is_not_known():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, (300, 4))
    scores = np.clip(0.5 + 0.2 * (labels == 1) + 0.2 * rng.normal(size=labels.shape), 0.01, 0.99)
    other = np.where(labels >= 0, scores, rng.random(labels.shape))
    thresholds = tune_thresholds(labels, scores)
    assert np.array_equal(thresholds, tune_thresholds(labels, other))
    assert np.array_equal(fit_slopes(labels, scores, thresholds), fit_slopes(labels, other, thresholds))


def test_an_output_layer_is_not_fitted_to_what_is_not_known():
    torch.manual_seed(0)
    embeddings, labels = torch.randn(40, 3), torch.randint(0, 2, (40, 2))
    partly = labels.clone()
    partly[20:, 1] = -1
    fitted = [torch.nn.Linear(3, 2) for _ in range(2)]
    for layer, rows in zip(fitted, (slice(0, 40), slice(0, 20)), strict=True):
        torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
        given = partly if rows.stop == 40 else labels[:20]
        padded = torch.cat([embeddings[:20], embeddings[20:]])[rows]
        fit_output_layer(layer, padded, given, torch.ones(rows.stop))
    alone = torch.nn.Linear(3, 1)
    torch.nn.init.zeros_(alone.weight), torch.nn.init.zeros_(alone.bias)
    weights = torch.cat([torch.ones(20), torch.zeros(20)])
    fit_output_layer(alone, embeddings, labels[:, 1:], weights)
    assert torch.allclose(fitted[0].weight[1], alone.weight[0], atol=1e-4)


def test_a_batch_may_be_split_however_much_of_each_part_is_known(tmp_path):
    whole = build(tmp_path / "whole", clips=PartlyKnown, per_device_train_batch_size=8, max_steps=2)
    parts = build(
        tmp_path / "parts", clips=PartlyKnown, per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=2
    )
    whole.train(), parts.train()
    for one, other in zip(first_logs(whole), first_logs(parts), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    clips = PartlyKnown()
    whole.model.eval()
    batch = whole._prepare_inputs(collate([clips[row] for row in range(len(clips))]))
    known = batch["labels"] >= 0
    losses = binary_cross_entropy_with_logits(whole.model(batch["input_values"]).logits[known], batch["labels"][known])
    assert whole.compute_loss(whole.model, batch).item() == pytest.approx(losses.item()), "the mean of what is known"


def test_what_is_known_of_the_validation_clips_does_not_change_the_training_loss(tmp_path):
    trainer = build(tmp_path, per_device_train_batch_size=8)
    other = InstrumentTrainer(
        model=trainer.model, args=trainer.args, train_dataset=trainer.train_dataset, eval_dataset=PartlyKnown(),
        data_collator=collate, processing_class=trainer.processing_class, features=trainer.features,
    )  # fmt: skip
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.model.eval()
    assert other.compute_loss(other.model, batch).item() == trainer.compute_loss(trainer.model, batch).item()


def test_the_output_of_a_class_that_nobody_judged_is_not_trained(tmp_path):
    trainer = build(tmp_path, clips=PartlyKnown, per_device_train_batch_size=8, max_steps=3, weight_decay=0.0)
    before = trainer.model.classifier.dense.weight.detach().clone()
    trainer.train()
    changed = (trainer.model.classifier.dense.weight.detach() != before).any(dim=1).tolist()
    assert changed == [True, False, True]
    assert 0 < trainer.evaluate()["eval_loss"] < 5


def test_where_everything_is_known_the_loss_is_the_models_own(tmp_path):
    trainer = build(tmp_path, per_device_train_batch_size=8)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.model.eval()
    assert trainer.known_share == 1
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(trainer.model(**batch).loss.item())
