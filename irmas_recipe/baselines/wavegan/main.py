"""Train a WaveGAN on the clips of one class, and write what it generates, as it goes.

irmas wavegan/generator --instrument cel
"""

import shlex
from pathlib import Path

import librosa
import numpy as np
import torch
import yaml
from matplotlib.figure import Figure
from tqdm import tqdm

from irmas_dataset import WaveformColumn, prepare
from irmas_dataset.errors import UserError
from irmas_dataset.label_text import folder_name
from irmas_dataset.whole_file import whole_file
from irmas_dataset.write_audio import write_audio
from irmas_recipe.baselines.wavegan.networks import LATENT_SIZE, Discriminator, Generator, discriminator_loss
from irmas_recipe.baselines.wavegan.recipe import WaveganRecipe
from irmas_recipe.report.style import save
from irmas_recipe.training.checkpoint import first_sentence
from irmas_recipe.training.clips import fit_length
from irmas_recipe.training.data import load_data, separation

SAMPLING_RATE = 16_000
DISCRIMINATOR_STEPS = 5
NUM_SHOWN = 8


class WaveganTrainer:
    """Generator, discriminator, their optimizers and their random numbers: all that a checkpoint holds."""

    def __init__(
        self, clips: list[np.ndarray], samples: int, model_size: int, batch_size: int, device: torch.device, seed: int
    ) -> None:
        """clips: int16 (samples,) of any length; a training example is a random cut of one."""
        torch.manual_seed(seed)
        self.clips, self.samples, self.batch_size, self.device = clips, samples, batch_size, device
        self.generator = Generator(samples, model_size).to(device)
        self.discriminator = Discriminator(samples, model_size).to(device)
        settings = {"lr": 1e-4, "betas": (0.5, 0.9)}
        self.optimizers = {
            "generator": torch.optim.Adam(self.generator.parameters(), **settings),
            "discriminator": torch.optim.Adam(self.discriminator.parameters(), **settings),
        }
        self.random = torch.Generator().manual_seed(seed)
        self.step = 0

    def train_step(self) -> dict[str, float]:
        """Take five steps of the discriminator and one of the generator; return both losses."""
        for _ in range(DISCRIMINATOR_STEPS):
            with torch.no_grad():
                generated = self.generator(self.noise(self.batch_size))
            loss = discriminator_loss(self.discriminator, self.real_batch(), generated, self.random)
            self.update("discriminator", loss)
        generator_loss = -self.discriminator(self.generator(self.noise(self.batch_size))).mean()
        self.update("generator", generator_loss)
        self.step += 1
        return {"discriminator": loss.item(), "generator": generator_loss.item()}

    def update(self, name: str, loss: torch.Tensor) -> None:
        """Let one optimizer follow a loss."""
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()

    def noise(self, count: int) -> torch.Tensor:
        """Return z (count, 100), uniform in [-1, 1]."""
        return (2 * torch.rand((count, LATENT_SIZE), generator=self.random) - 1).to(self.device)

    def real_batch(self) -> torch.Tensor:
        """Return random cuts of random clips, (batch, samples) in [-1, 1]."""
        rows = []
        for index in torch.randint(len(self.clips), (self.batch_size,), generator=self.random).tolist():
            spare = max(len(self.clips[index]) - self.samples, 0)
            start = int(torch.randint(spare + 1, (1,), generator=self.random))
            rows.append(fit_length(self.clips[index][start : start + self.samples], self.samples))
        return torch.from_numpy(np.stack(rows)).to(self.device, torch.float32) / 2**15

    @torch.no_grad()
    def generate(self, count: int, seed: int) -> np.ndarray:
        """Return waveforms (count, samples) that depend on the weights and the seed alone."""
        random = torch.Generator().manual_seed(seed)
        z = 2 * torch.rand((count, LATENT_SIZE), generator=random) - 1
        return np.concatenate([self.generator(part.to(self.device)).cpu().numpy() for part in z.split(64)])

    def save(self, path: Path) -> None:
        """Write a checkpoint so that an interruption leaves the last whole one."""
        state = {name: getattr(self, name).state_dict() for name in ("generator", "discriminator")}
        state["optimizers"] = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        # Phase shuffle draws from torch's own generator.
        state |= {"random": self.random.get_state(), "torch_random": torch.get_rng_state(), "step": self.step}
        with whole_file(path) as unfinished:
            torch.save(state, unfinished)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; UserError where it cannot be read or is of networks of another size."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged pickle can raise anything
            raise UserError(
                f"{path} cannot be read ({first_sentence(error)}): remove it to start the training anew."
            ) from error
        try:
            for name in ("generator", "discriminator"):
                getattr(self, name).load_state_dict(state[name])
        except RuntimeError as error:
            raise UserError(f"{path} is of networks of another size: give another --output_dir.") from error
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.random.set_state(state["random"])
        torch.set_rng_state(state["torch_random"])
        self.step = state["step"]


def main(recipe: WaveganRecipe) -> None:
    """Train, or go on where an interrupted training stopped, and write clips, a sheet of spectrograms and checkpoints.

    In the output folder: `<instrument>/` with checkpoint, recipe and samples; `train/<instrument>/` with the generated
    clips, so that the generators of all classes fill one folder that `extra_train_dir` can name.
    """
    settings, clips = recipe.wavegan, clips_of(recipe)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        trainer = WaveganTrainer(
            clips, settings.samples, settings.model_size, settings.batch_size, device, settings.seed
        )
    except ValueError as error:
        raise UserError(f"--samples: {error}") from error
    own_dir = Path(settings.output_dir, folder_name(settings.instrument))
    checkpoint = own_dir / "checkpoint.pt"
    begin(recipe, own_dir)
    if checkpoint.is_file():
        trainer.load(checkpoint)
    if trainer.step > settings.steps:
        raise UserError(
            f"{own_dir} is of {trainer.step} steps: give --steps {trainer.step} or more, or another --output_dir."
        )
    bar = tqdm(range(trainer.step, settings.steps), initial=trainer.step, total=settings.steps, disable=None)
    for _ in bar:
        losses = trainer.train_step()
        bar.set_postfix({name: f"{loss:.2f}" for name, loss in losses.items()})
        if trainer.step % settings.save_steps == 0 or trainer.step == settings.steps:
            show(trainer, own_dir / "samples")
            trainer.save(checkpoint)
    folder = Path(settings.output_dir, "train", folder_name(settings.instrument))
    folder.mkdir(parents=True, exist_ok=True)
    for number, waveform in enumerate(trainer.generate(settings.generate, settings.seed)):
        write_audio(folder / f"wavegan-{number:05d}.wav", waveform, SAMPLING_RATE)
    for left_over in sorted(folder.glob("wavegan-*.wav"))[settings.generate :]:  # of a start that was asked for more
        left_over.unlink()
    print(
        f"{settings.generate} generated clips of {settings.instrument} are in {folder}, samples of the training in "
        f"{own_dir / 'samples'}. A recipe trains on them too with --extra_train_dir {shlex.quote(settings.output_dir)}."
    )


def begin(recipe: WaveganRecipe, own_dir: Path) -> None:
    """Make the generator's folder and write the recipe there.

    Raises:
        UserError: the folder holds a checkpoint of another recipe; more steps or clips make no other one.
    """
    free = ("steps", "generate", "save_steps", "output_dir", "preparation_processes")
    values = vars(recipe.data) | vars(recipe.wavegan)
    values = yaml.safe_load(yaml.safe_dump({name: value for name, value in values.items() if name not in free}))
    path = own_dir / "recipe.yaml"
    if (own_dir / "checkpoint.pt").is_file() and path.is_file():
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        if changed := [name for name in values if before.get(name) != values[name]]:
            raise UserError(
                f"{own_dir} holds a training with {changed[0]} {before.get(changed[0])}: give another --output_dir, or "
                "remove it."
            )
    own_dir.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        unfinished.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


def clips_of(recipe: WaveganRecipe) -> list[np.ndarray]:
    """Return the training clips of one class as int16 at 16 kHz: never validation's, never the test set's."""
    instrument, data_dir = recipe.wavegan.instrument, recipe.data.data_dir
    train = load_data(recipe.data)["train"]
    names = train.features["instruments"].feature.names
    if instrument not in names:
        raise UserError(f"--instrument {instrument} is no class of {data_dir}: name one of {', '.join(names)}.")
    wanted = names.index(instrument)
    of_class = train.select([row for row, classes in enumerate(train["instruments"][:]) if wanted in classes])
    if len(of_class) == 0:
        raise UserError(f"{data_dir} has no training clips of {instrument}: add some, or name another --instrument.")
    waveforms = WaveformColumn(
        prepare(of_class, SAMPLING_RATE, num_proc=recipe.data.preparation_processes, transform=separation(recipe.data))
    )
    return [waveforms[row] for row in range(len(waveforms))]


def show(trainer: WaveganTrainer, folder: Path) -> None:
    """Write a few generated clips, one after the other, and a sheet of their spectrograms."""
    folder.mkdir(exist_ok=True)
    waveforms = trainer.generate(NUM_SHOWN, seed=0)
    name = f"step-{trainer.step:06d}"
    write_audio(folder / f"{name}.wav", np.concatenate(waveforms), SAMPLING_RATE)
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    for axes, waveform in zip(figure.subplots(2, NUM_SHOWN // 2).flat, waveforms, strict=True):
        power = librosa.feature.melspectrogram(y=waveform, sr=SAMPLING_RATE, n_fft=1024, hop_length=256, n_mels=96)
        axes.imshow(librosa.power_to_db(power, ref=np.max), origin="lower", aspect="auto", cmap="magma", vmin=-80)
        axes.set_axis_off()
    seconds = trainer.samples / SAMPLING_RATE
    figure.suptitle(
        f"Step {trainer.step:,}: {NUM_SHOWN} generated clips of {seconds:.1f} s, mel spectrograms", fontsize=13
    )
    save(figure, folder / f"{name}.png")
