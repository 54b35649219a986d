"""What a recipe freezes stays as it is, to the last statistic."""

import pytest
import torch

from irmas_recipe.training.augmentation import Augmentation
from irmas_recipe.training.clips import collate
from irmas_recipe.training.features import device_features
from irmas_recipe.training.fields import AugmentationArguments, ModelArguments
from irmas_recipe.training.model import load_model
from irmas_recipe.training.trainer import InstrumentTrainer
from irmas_recipe.training.training_arguments import IrmasTrainingArguments
from tests.training.test_trainer import Noise


@pytest.mark.parametrize("frozen", ["none", "backbone", "batch_norm"])
def test_the_statistics_of_a_batch_norm_without_scale_and_shift_are_frozen_where_the_recipe_says(tmp_path, frozen):
    config = {"architecture": "spectrogram_image", "filters": [2, 2], "hidden_size": 4}
    arguments = ModelArguments(architecture="cnn", model_config=config, freeze=frozen)
    model, extractor = load_model(arguments, ["cel", "cla", "voi"], window_seconds=8000 / 22050)
    trainer = InstrumentTrainer(
        model=model, train_dataset=Noise(), data_collator=collate, features=device_features(extractor),
        args=IrmasTrainingArguments(
            output_dir=str(tmp_path), use_cpu=True, bf16=False, max_steps=2, eval_strategy="no", save_strategy="no",
            load_best_model_at_end=False,
        ),
        augmentation=Augmentation(AugmentationArguments(), 22050, 8000),
    )  # fmt: skip
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer.train()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "classifier.weight" in moved
    assert any("normalization" in name for name in moved) == (frozen == "none"), moved
