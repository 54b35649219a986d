"""What a run refuses of the data before it trains."""

import numpy as np
import pytest
import soundfile
import yaml

from irmas_dataset.errors import UserError
from training import run
from training.arguments import parse_recipe


@pytest.mark.parametrize(
    ("classes", "sentence"), [(["piano"], "holds one class, piano"), (["song", "speech"], "a class named 'song'")]
)
def test_classes_that_no_table_could_hold(tmp_path, classes, sentence):
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    for name in classes:
        for split in ("train", "test"):
            (tmp_path / "music" / split / name).mkdir(parents=True)
            for number in range(4):
                soundfile.write(tmp_path / "music" / split / name / f"{number}.wav", noise, 16000)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"architecture": "ast", "data_dir": str(tmp_path / "music"), "use_cpu": True}))
    with pytest.raises(UserError, match=sentence):
        run.load_data(parse_recipe([str(recipe), "--window_seconds=1", f"--output_dir={tmp_path / 'run'}"]))
