"""transformers' Trainer with features and augmentation on the device, layer-wise rates and weight averaging."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler
from transformers import PreTrainedModel, Trainer, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalLoopOutput, PredictionOutput

from irmas_dataset.errors import UserError
from irmas_dataset.whole_file import open_to_readers
from irmas_recipe.training.attention import attend_without_mask, fastest_attention
from irmas_recipe.training.augmentation import Augmentation
from irmas_recipe.training.averaging import AVERAGE_FILE, WeightAverage, WeightAveraging, use_average_of
from irmas_recipe.training.checkpoint import strictly_from_pretrained
from irmas_recipe.training.compilation import compile_blocks, repeated_blocks
from irmas_recipe.training.cuda_graph import GraphedAdamW, GraphedStep, suits_a_graph
from irmas_recipe.training.layers import layer_stack, may_leave_parameters_out, parameter_groups
from irmas_recipe.training.loss import multi_label_loss
from irmas_recipe.training.origin import write_origin
from irmas_recipe.training.precision import full_precision
from irmas_recipe.training.processes import end
from irmas_recipe.training.sampling import EpochOfClips, EpochSampler
from irmas_recipe.training.stopping import STOPPED, StopAtSigterm, shield_workers

MOST_UNCHECKED_LOSSES = 64  # whose batches are held in memory; after each look a GPU waits for its next step


class InstrumentTrainer(Trainer):
    """A Trainer whose batches are int16 waveforms (batch, samples) and labels (batch, classes).

    `seconds_before` are those behind the checkpoint that a run resumes from (see origin.py), `resumed_from` its folder.
    """

    seconds_before: Mapping[str, float] = MappingProxyType({})
    resumed_from: str | None = None

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        *,
        features: Callable[[torch.Tensor], torch.Tensor],
        augmentation: Augmentation | None = None,
        made_from: dict | None = None,
        **kwargs: Any,
    ) -> None:
        """`features` maps waveforms (batch, samples) in [-1, 1] to the model's input on the device.

        Without `augmentation` a training clip must be as long as the window. `made_from` is kept in every checkpoint (see
        origin.py).
        """
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = may_leave_parameters_out(model)
        if args.ddp_static_graph and args.ddp_find_unused_parameters:
            raise UserError(
                "--ddp_static_graph true: this model's steps may leave layers out (--layerdrop); leave it out."
            )
        super().__init__(model, args, **kwargs)
        self.made_from = made_from
        self.known_share = float(np.mean(np.asarray(getattr(self.train_dataset, "labels", 0)) >= 0))
        self.features = features
        self.augmentation = augmentation
        self.average: WeightAverage | None = None
        self.started, self.evaluation_seconds = time.perf_counter(), 0.0
        self.epoch_sampler: EpochSampler | None = None
        self._step_and_batch = (-1, 0)
        self._unchecked: list[tuple[int, torch.Tensor, dict]] = []
        self.uses_graph = suits_a_graph(self.model, self.args)
        self.graphed_step: GraphedStep | None = None
        self.gradient_norm: torch.Tensor | None = None  # of gradients that are clipped already
        self.frozen = frozen_modules(self.model)
        attend_without_mask(self.model)
        if self.args.compile_model is None:
            self.args.compile_model = self.args.device.type == "cuda" and bool(repeated_blocks(self.model))
        if self.args.compile_model:
            compile_blocks(self.model, self.args.compile_mode, self.args.compile_backend)
        if self.args.weight_averaging == "ema":
            self.add_callback(WeightAveraging(self))
        self.add_callback(EpochOfClips(self))
        self.stopping = StopAtSigterm() if self.args.stop_at_sigterm else None
        self.saved_step = -1
        if self.stopping is not None:
            self.add_callback(self.stopping)

    def _prepare_inputs(self, inputs: dict) -> dict:
        """Turn a batch of waveforms into features on the device, augmented in training."""
        inputs = super()._prepare_inputs(inputs)
        for module in self.frozen:  # the Trainer has just called model.train()
            module.eval()
        waveforms = inputs["waveforms"].float() / 2**15
        labels = inputs["labels"]
        if not self.model.training or self.augmentation is None:
            return {self.model.main_input_name: self.features(waveforms), "labels": labels}
        waveforms, labels = self.augmentation.waveforms(waveforms, labels, inputs.get("lengths"))
        features = self.augmentation.features(self.features(waveforms))
        return {self.model.main_input_name: features, "labels": labels}

    def _seed_augmentation(self) -> None:
        """Seed torch by run, step, batch within the step and process, so that a resumed run augments as an unbroken one.

        The generators are set and not restored: their states would have to be copied from the device and back.
        """
        step, batch = self._step_and_batch
        batch = batch + 1 if step == self.state.global_step else 0
        self._step_and_batch = (self.state.global_step, batch)
        seed = hash((self.args.seed, self.state.global_step, batch, self.args.process_index)) % 2**63
        # What `torch.manual_seed` does, without the half of a millisecond in which it looks up who called it.
        torch.default_generator.manual_seed(seed)
        if self.args.device.type == "cuda":
            torch.cuda.default_generators[self.args.device.index or 0].manual_seed(seed)

    def get_train_dataloader(self) -> DataLoader:
        """Return batches of clips: from the device's memory, from the loader's workers, or from a stream.

        A stream is already divided among the processes, so accelerate must not divide it again.
        """
        clips, batch_size = self.train_dataset, self.args.train_batch_size
        if isinstance(clips, IterableDataset):
            options = ("num_workers", "pin_memory", "prefetch_factor", "multiprocessing_context")
            given = {name: getattr(self.args, f"dataloader_{name}") for name in options}
            loader = DataLoader(clips, batch_size, collate_fn=self.data_collator, **given)
            return loader if self.stopping is None else shield_workers(loader)
        if getattr(clips, "on_device", None) is None:
            return super().get_train_dataloader()
        sampler = self._get_train_sampler()
        return self.accelerator.prepare(DataLoader(clips, batch_size, sampler=sampler, collate_fn=self.data_collator))

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        """Return a loader whose workers end with this process alone, where SIGTERM is to leave time for a checkpoint."""
        loader = super()._get_dataloader(*args, **kwargs)
        return loader if self.stopping is None else shield_workers(loader)

    def num_examples(self, dataloader: DataLoader) -> int:
        """Return the clips of an epoch on all processes (a stream counts those of one), behind the clips per second."""
        processes = self.args.world_size if isinstance(dataloader.dataset, IterableDataset) else 1
        return super().num_examples(dataloader) * processes

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        """Return a shuffled order, balanced if asked for; an epoch is a whole number of optimizer steps, so shapes never change."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        step = self.args.train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps
        self.epoch_sampler = EpochSampler(dataset.labels, self.args.order_seed, step, dataset.balanced)
        return self.epoch_sampler

    def training_step(self, model: torch.nn.Module, inputs: dict, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Take a step and remember its loss and batch, which are looked at when the loss is logged.

        Looking at once would make the CPU wait for the device in every step. Half precision (fp16) is left to the
        gradient scaler, which expects an occasional step that overflows.
        """
        self._seed_augmentation()
        with fastest_attention(self.args.device):
            if self.uses_graph and self.current_gradient_accumulation_steps == self.args.gradient_accumulation_steps:
                loss = self.replayed_step(model, inputs)
            else:
                loss = super().training_step(model, inputs, *args, **kwargs)
        if not self.args.fp16:
            self._unchecked.append((self.state.global_step + 1, loss, inputs))
            if len(self._unchecked) == MOST_UNCHECKED_LOSSES:
                self.check_losses()
        return loss

    def replayed_step(self, model: torch.nn.Module, inputs: dict) -> torch.Tensor:
        """Take a step's forward and backward pass, and clip what they leave, as one CUDA graph."""
        if self.graphed_step is None:
            self.graphed_step = GraphedStep(partial(self.clipped_step, model), model.parameters())
        on_device = self._prepare_input({name: tensor for name, tensor in inputs.items() if name != "rows"})
        loss, *norm = self.graphed_step(on_device)
        self.gradient_norm = norm[0] if norm else None
        return loss

    def clipped_step(self, model: torch.nn.Module, inputs: dict) -> tuple[torch.Tensor, ...]:
        """Return the loss, and the norm of the gradients before clipping where they are complete after one batch."""
        loss = super().training_step(model, inputs)
        if self.args.gradient_accumulation_steps > 1 or not self.args.max_grad_norm:
            return (loss,)
        return loss, super()._clip_grad_norm(model)

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        """Clip the gradients where the step has not done so, and return what their norm was."""
        norm, self.gradient_norm = self.gradient_norm, None
        return super()._clip_grad_norm(model) if norm is None else norm

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict, return_outputs: bool = False, **kwargs: Any
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the binary cross-entropy over all known labels, whatever loss the model itself would compute.

        Most of transformers' heads know only the cross-entropy of a single label. Of the outputs only the logits are kept:
        Whisper's also have every layer's states, which the Trainer would collect.
        """
        inputs = dict(inputs)
        labels = inputs.pop("labels")
        logits = model(**inputs).logits
        loss = multi_label_loss(logits.float(), labels) / self.known_share
        return (loss, {"logits": logits}) if return_outputs else loss

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Look at the losses before anything is logged or saved: every later step would be wasted.

        Where SIGTERM was received, the run leaves when all that is due at this step is done.
        """
        leaves = self.stopping is not None and self.stopping.may_leave
        if self.control.should_log or self.control.should_save or self.control.should_evaluate or leaves:
            self.check_losses()
        super()._maybe_log_save_evaluate(*args, **kwargs)
        if leaves:
            self.leave_with_checkpoint()

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint, and remember the step."""
        super()._save_checkpoint(*args, **kwargs)
        self.saved_step = self.state.global_step

    def leave_with_checkpoint(self) -> None:
        """End the run with a checkpoint of this step: raises SystemExit, or ends the process."""
        step = self.state.global_step
        if self.saved_step != step:
            self._save_checkpoint(self.model, None)
        logging.warning(
            "Stopped by SIGTERM after step %d of %d, kept in %s; the same command resumes.",
            step, self.state.max_steps, Path(self.args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{step}"),
        )  # fmt: skip
        end(self, STOPPED)

    def check_losses(self) -> None:
        """Stop at the first step since the last look whose loss was not finite.

        Raises:
            UserError: naming the batch's clips and the file in which the batch is kept.
        """
        unchecked, self._unchecked = self._unchecked, []
        if not unchecked:
            return
        finite = torch.isfinite(torch.stack([loss.detach() for _, loss, _ in unchecked])).tolist()
        for (step, _, inputs), is_finite in zip(unchecked, finite, strict=True):
            if not is_finite:
                raise UserError(self.keep_batch(step, inputs))

    def keep_batch(self, step: int, inputs: dict) -> str:
        """Write a batch whose loss is not finite into the run folder; return the sentence about it."""
        path = Path(self.args.output_dir, f"non_finite_batch_{step}_{self.args.process_index}.safetensors")
        kept = {name: inputs[name].cpu().contiguous() for name in ("waveforms", "labels")}
        clips = self.train_dataset.paths(inputs["rows"].tolist()) if "rows" in inputs else ["of the stream"]
        save_file(kept, path, metadata={"clips": "\n".join(clips)})
        return (
            f"The loss of step {step} is not finite: its batch is kept in {path}, its clips are {', '.join(clips)}; "
            "lower --learning_rate, set --max_grad_norm, or check these clips."
        )

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the optimizer: decay on the weights of layers alone, and a lower rate for lower layers.

        Raises:
            UserError: a `layer_decay` for a model without a stack of layers, where it would change nothing.
        """
        if self.optimizer is None:
            network = self.model if model is None else model
            if self.args.layer_decay != 1 and layer_stack(network) is None:
                raise UserError(
                    f"--layer_decay {self.args.layer_decay:g}: this model has no stack of layers; set it to 1."
                )
            decayed = set(self.get_decay_parameter_names(network))
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, network)
            groups = parameter_groups(
                network, decayed, options["lr"], self.args.weight_decay, layer_decay=self.args.layer_decay
            )
            if self.uses_graph and optimizer_class is torch.optim.AdamW and options.get("fused"):
                optimizer_class = GraphedAdamW
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Return the recipe's schedule; `one_cycle` is torch's OneCycleLR, rising for `warmup_steps` (a fraction or a number).

        Raises:
            UserError: the run has fewer steps.
        """
        if not self.args.one_cycle or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        optimizer = self.optimizer if optimizer is None else optimizer
        warmup = self.args.get_warmup_steps(num_training_steps) / num_training_steps
        if warmup > 1:
            raise UserError(
                f"--warmup_steps {self.args.warmup_steps:g}: with --one_cycle the rate rises within the {num_training_steps} "
                "steps of the run; lower it, or give a share such as 0.3."
            )
        self.lr_scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=num_training_steps + 1,
            pct_start=warmup or 0.3,
            cycle_momentum=False,
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def floating_point_ops(self, inputs: dict) -> int:
        """Return 0: transformers' estimate counts tokens of text; the benchmark counts operations."""
        return 0

    def predict(self, *args: Any, **kwargs: Any) -> PredictionOutput:
        """Predict without figures: `compute_metrics` knows the validation clips, and these may be others."""
        figures, self.compute_metrics = self.compute_metrics, None
        try:
            return super().predict(*args, **kwargs)
        finally:
            self.compute_metrics = figures

    def prediction_step(self, *args: Any, **kwargs: Any) -> tuple:
        """Score in full precision whatever training used, so that the saved model gives the same figures anywhere.

        Raises:
            UserError: a step has spoiled the weights, which no loss has shown yet.
        """
        with full_precision(self.model):
            loss, logits, labels = super().prediction_step(*args, **kwargs)
        if logits is not None and not logits.isfinite().all():  # None where nothing but the loss is asked for
            raise UserError(
                "The model's scores are not finite any more: lower --learning_rate, or set --max_grad_norm."
            )
        return loss, logits, labels

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate the averaged weights where there are any, and keep the time apart from training's."""
        start = time.perf_counter()
        with self.averaged_weights():
            self.share_buffers()
            output = super().evaluation_loop(*args, **kwargs)
        self.evaluation_seconds += time.perf_counter() - start
        return output

    def seconds(self) -> dict[str, float]:
        """Return the seconds of training and of validation behind the weights, without those that a kill undid."""
        training = time.perf_counter() - self.started - self.evaluation_seconds
        now = {"seconds": training, "validation_seconds": self.evaluation_seconds}
        return {name: round(seconds + self.seconds_before.get(name, 0.0), 3) for name, seconds in now.items()}

    def share_buffers(self) -> None:
        """Give every process the first one's buffers: each has seen other clips, and batch statistics would differ."""
        if self.args.world_size > 1:
            for buffer in self.model.buffers():
                broadcast(buffer)

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Put the averaged weights into the model for a while."""
        if self.average is None:
            yield
            return
        trained = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.average.average)
        try:
            yield
        finally:
            self.model.load_state_dict(trained)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save a checkpoint, with the average beside the trained weights, since a resumed run needs both."""
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        if self.average is not None:
            averaged = {name: tensor.contiguous() for name, tensor in self.average.state_dict().items()}
            save_file(averaged, folder / AVERAGE_FILE)
        open_to_readers(folder)
        if self.made_from is not None and folder.name.startswith(PREFIX_CHECKPOINT_DIR):
            write_origin(folder, self.made_from | self.seconds())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """Load the weights to resume from, strictly."""
        self.load_weights(resume_from_checkpoint)
        self.resumed_from = resume_from_checkpoint

    def _init_training_state(self, *args: Any) -> tuple[int, int]:
        """Begin, or go on from what a checkpoint says, whose run may have been moved since."""
        trained = super()._init_training_state(*args)
        if self.resumed_from is not None:
            self.state.best_model_checkpoint = best_checkpoint(self.state, self.resumed_from)
        return trained

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load the states of both, which another recipe's may not take."""
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except (ValueError, KeyError) as error:
            raise UserError(
                f"{checkpoint} was made by another optimizer or with other layers frozen: start as then, or from its weights alone "
                f"with --model_name_or_path {checkpoint}."
            ) from error

    def _load_best_model(self) -> None:
        """Load the best checkpoint, strictly: its average where there is one, because that is what was evaluated."""
        self.load_weights(self.state.best_model_checkpoint)
        self.load_average(self.state.best_model_checkpoint)
        self.use_average()

    def restore_if_finished(self, checkpoint: Path) -> bool:
        """Restore a run that was fully trained at this checkpoint; return whether it was.

        Asked to resume from its own last step, transformers' Trainer would take one step more.
        """
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        if state.global_step < self.planned_steps():
            return False
        self.state = state
        chosen = Path((self.args.load_best_model_at_end and best_checkpoint(state, checkpoint)) or checkpoint)
        self.load_weights(str(chosen))
        use_average_of(chosen, self.model)
        return True

    def planned_steps(self) -> int:
        """Return how many steps the recipe asks for."""
        *_, max_steps = self.set_initial_training_values(self.args, self.get_train_dataloader())
        return max_steps

    def load_weights(self, checkpoint: str) -> None:
        """Read a checkpoint's weights into the model.

        The Trainer would read the file as it is, but transformers saves AST under its older key names: every encoder
        weight would keep its old value, with only a warning. `from_pretrained` knows both names.
        """
        try:
            saved = strictly_from_pretrained(type(self.model), checkpoint, self.model.config)
        except UserError as error:
            raise UserError(
                f"{checkpoint} is damaged, or has another network than this recipe: start as then, or remove it, and the run "
                "resumes from the one before."
            ) from error
        self.model.load_state_dict(saved.state_dict(), strict=True)

    def load_average(self, checkpoint: str | None) -> None:
        """Read the running average of a checkpoint back."""
        if self.average is not None and checkpoint and Path(checkpoint, AVERAGE_FILE).is_file():
            self.average.load_state_dict(load_file(Path(checkpoint, AVERAGE_FILE)))

    def use_average(self) -> None:
        """Replace the trained weights by their average and stop averaging."""
        if self.average is not None:
            self.model.load_state_dict(self.average.average)
            self.average = None


def best_checkpoint(state: TrainerState, checkpoint: Path | str) -> str | None:
    """Return the best checkpoint that a state knows: beside the one it was read from, or else where it was written."""
    beside = Path(checkpoint).with_name(f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}")
    return str(beside) if beside.is_dir() else state.best_model_checkpoint


def frozen_modules(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the largest submodules that are marked as frozen or whose parameters all are.

    They stay in evaluation mode, so that a linear probe sees the checkpoint's own features, without dropout, and the
    batch statistics of a frozen backbone do not drift.
    """
    frozen = []
    for child in model.children():
        trainable = [parameter.requires_grad for parameter in child.parameters()]
        if getattr(child, "is_frozen", False) or (trainable and not any(trainable)):
            frozen.append(child)
        else:
            frozen += frozen_modules(child)
    return frozen
