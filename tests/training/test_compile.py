"""A compiled run: one graph for training, at most one for evaluation, whatever the batch; found on the disk next time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_one_graph_for_training_and_at_most_one_for_evaluation(tmp_path):
    """19 clips make two batches of 8 and a rest, 5 clips of 1.3 s make 15 windows, which are no whole batches either."""
    first, second = (run_compiled(tmp_path, name) for name in ("first", "second"))
    for counted in (first, second):
        assert counted["before evaluation"] == 1
        assert counted["after one epoch"] <= 2, "at most one more for evaluation"
        assert counted["at the end"] == counted["after one epoch"], "a later epoch or a last batch compiled again"
    assert first["hits"] == 0 and first["misses"] > 0
    assert second["misses"] == 0 and second["hits"] > 0, "the second start must find its graphs on the disk"


def run_compiled(folder: Path, name: str) -> dict:
    """Train in a process of its own, with the compiler's cache in `folder`, and return what its counters said."""
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, str(folder / name)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def main(output_dir: str) -> None:
    """Train three epochs with evaluation after each, patchout, augmentation and averaging, and print the counters."""
    import torch._dynamo.utils
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, TrainerCallback, set_seed

    from irmas_recipe.models.ast.adaptation import add_patchout, compute_only_what_is_pooled
    from irmas_recipe.training.augmentation import Augmentation
    from irmas_recipe.training.clips import collate
    from irmas_recipe.training.features import device_features
    from irmas_recipe.training.fields import AugmentationArguments
    from irmas_recipe.training.trainer import InstrumentTrainer
    from irmas_recipe.training.training_arguments import IrmasTrainingArguments

    counters = torch._dynamo.utils.counters
    counted = {}

    class Count(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            counted.setdefault("before evaluation", counters["stats"]["unique_graphs"])

        def on_evaluate(self, args, state, control, **kwargs):
            counted.setdefault("after one epoch", counters["stats"]["unique_graphs"])

    set_seed(0)
    config = ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_length=48, num_labels=3,
        problem_type="multi_label_classification",
    )  # fmt: skip
    model = ASTForAudioClassification(config)
    model.accepts_loss_kwargs = False
    add_patchout(model, 1, 1, 1)
    compute_only_what_is_pooled(model)
    arguments = IrmasTrainingArguments(
        output_dir=output_dir, use_cpu=True, torch_compile=True, bf16=False, per_device_train_batch_size=8,
        per_device_eval_batch_size=8, num_train_epochs=3, eval_strategy="epoch", save_strategy="no", disable_tqdm=True,
        load_best_model_at_end=False, metric_for_best_model=None, weight_averaging="ema", logging_steps=1,
    )  # fmt: skip
    windows, extractor = windows_of_long_clips(), ASTFeatureExtractor(max_length=48)
    augmentation = AugmentationArguments(mix_probability=0.5, time_masks=1, max_time_mask_frames=8)
    trainer = InstrumentTrainer(
        model=model, args=arguments, train_dataset=Noise(), eval_dataset=windows, data_collator=collate,
        processing_class=extractor, features=device_features(extractor),
        augmentation=Augmentation(augmentation, 16000, 8000), callbacks=[Count()],
    )  # fmt: skip
    trainer.train()
    trainer.predict(windows)
    counted["at the end"] = counters["stats"]["unique_graphs"]
    counted["hits"] = counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"]
    counted["misses"] = counters["inductor"]["fxgraph_cache_miss"]
    print(json.dumps(counted))


def windows_of_long_clips():
    """Fifteen windows of five clips: no whole batches of 8."""
    from irmas_recipe.training.clips import WindowedClips

    generator = np.random.default_rng(0)
    long_clips = [(3000 * generator.standard_normal(20_800)).astype(np.int16) for _ in range(5)]
    windows = WindowedClips(long_clips, np.eye(5, 3, dtype=np.float32), 8000, 8000, batch_size=8)
    assert sum(windows.windows_per_clip) == 15
    return windows


class Noise(torch.utils.data.Dataset):
    """Nineteen random clips of half a second with one of three labels."""

    def __init__(self):
        self.waveforms = (3000 * np.random.default_rng(1).standard_normal((19, 8000))).astype(np.int16)
        self.labels = torch.nn.functional.one_hot(torch.arange(19) % 3, 3).float()
        self.balanced = False

    def __len__(self):
        return 19

    def __getitem__(self, index):
        row = index[0] if isinstance(index, tuple) else index  # the training sampler gives (row, draw)
        return {"waveforms": self.waveforms[row], "labels": self.labels[row]}


if __name__ == "__main__":
    main(sys.argv[1])
