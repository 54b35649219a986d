"""`predict --parts`: tag a shard of any number of files, in this process and for itself alone."""

import argparse
import copy
import sys
from collections.abc import Iterable
from itertools import islice

import numpy as np
import torch
from accelerate.utils import get_cpu_distributed_information
from tqdm import tqdm

from irmas_dataset.cores import usable_cores
from irmas_recipe.commands.predict.lists import every_name, share_of
from irmas_recipe.commands.predict.outputs import heading
from irmas_recipe.commands.predict.parts import Parts
from irmas_recipe.commands.predict.tagging import Tagger, check_network, count_unread, scores_of
from irmas_recipe.commands.system import load_system
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline

FILES_PER_WORKER = 8  # a process pays for fewer only where they are long
COMPARED_FILES = 8  # heard in both precisions


def tag_catalogue(args: argparse.Namespace) -> None:
    """Write the parts of a shard; processes of torchrun or accelerate share it among them and do not wait for each other."""
    started = get_cpu_distributed_information()
    index, count = args.shard
    shard = index * started.world_size + started.rank, count * started.world_size
    device = args.device
    if device is None and started.world_size > 1 and torch.cuda.is_available():
        device = f"cuda:{started.local_rank}"
    first = every_name([name for name in args.names if name != "-"], args.list, args.column)
    recognise = load_asked(args, device, first)
    workers = max(1, usable_cores() // started.local_world_size) if args.workers is None else args.workers
    tagger = Tagger(recognise, args.embeddings, workers)
    settings = heading(recognise, args, recognise.labels)
    settings |= {"weights_crc32": tagger.fingerprint(), "embeddings": args.embeddings, "bf16": args.bf16}
    parts = Parts(args.parts, shard, args.part_files, settings, resume=args.resume)
    names = share_of(every_name(args.names, args.list, args.column), *shard)
    rows = tqdm(tagger.tag(names, parts), unit="file", disable=None, leave=False)
    try:
        counts = count_unread(rows)
    except KeyboardInterrupt:
        print(f"Stopped. {args.parts} can be resumed with --resume.", file=sys.stderr)
        raise SystemExit(130) from None
    print(f"Shard {shard[0]}/{shard[1]}: {counts['heard']} files were heard, {counts['unread']} could not be read "
          f"(see the column error), into {args.parts}.", file=sys.stderr)  # fmt: skip


def load_asked(args: argparse.Namespace, device: str | None, names: Iterable[str]) -> InstrumentRecognitionPipeline:
    """Return the pipeline of the model and the options of the command line; `names` are read where --bf16 is compared."""
    recognise = load_system(
        args.model, device=device, batch_size=args.batch_size, trust_remote_code=args.trust_remote_code,
        classes=args.classes or "irmas", thresholds=args.threshold, aggregation=args.aggregation,
        window_seconds=args.window_seconds, hop_seconds=args.hop_seconds,
    )  # fmt: skip
    if args.bf16:
        lower_precision(recognise, list(islice(names, COMPARED_FILES)))
    return recognise


def workers_for(asked: int | None, files: int) -> int:
    """Return how many processes decode: as asked, else one per usable core where there are files enough; 0 is a thread."""
    return min(usable_cores(), files // FILES_PER_WORKER) if asked is None else asked


def lower_precision(recognise: InstrumentRecognitionPipeline, names: list[str]) -> None:
    """Make a network compute in bfloat16, and print how far its scores of the first files are from float32's.

    Raises:
        UserError: the model is no network.
    """
    check_network(recognise, "bf16")
    full = scores_of(recognise, names)
    recognise.model = copy.deepcopy(recognise.model).to(torch.bfloat16)
    low = scores_of(recognise, names)
    if full.size:
        difference = float(np.abs(full - low).max())
        print(
            f"bfloat16: scores of {len(full)} files differ from float32's by at most {difference:.2g}.", file=sys.stderr
        )
