"""Tag any number of files into parts: what `predict --parts` and the step of DataTrove do."""

import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from irmas_dataset.errors import UserError
from irmas_dataset.files import to_text
from irmas_recipe.commands.predict.lists import Address, is_address
from irmas_recipe.commands.predict.parts import Parts
from irmas_recipe.commands.predict.rows import heard_in, result_row, timeline_row
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from irmas_recipe.training.head import output_layer

SEGMENT = pa.struct([("label", pa.string()), *((name, pa.float32()) for name in (
    "start_seconds", "end_seconds", "score", "confidence"))])  # fmt: skip


class Tagger:
    """A model that hears files, and the rows that come of it."""

    def __init__(
        self, recognise: InstrumentRecognitionPipeline, embeddings: str | None = None, workers: int = 0
    ) -> None:
        """Prepare the model.

        Args:
            embeddings: `file` or `window`: one vector for each of these as well, from the layer before the output layer.
            workers: processes that decode; 0 is a thread.

        Raises:
            UserError: the model has no single output layer, and embeddings are asked for.
        """
        self.recognise, self.embeddings, self.workers = recognise, embeddings, workers
        self.size = None
        if embeddings:
            check_network(recognise, "embeddings")
            _, recognise.embeds = output_layer(recognise.model)
            self.size = recognise.embeds.in_features
        self.schema = self.make_schema()

    def make_schema(self) -> pa.Schema:
        """Return the columns of a part."""
        fields = [("path", pa.string()), ("error", pa.string()), ("duration_seconds", pa.float64()), ("rule", pa.string()),
                  ("instruments", pa.list_(pa.string())), ("seconds", pa.list_(pa.float32())),
                  *((f"score_{label}", pa.float32()) for label in self.recognise.labels),
                  ("timeline", pa.list_(SEGMENT))]  # fmt: skip
        if self.embeddings == "file":
            fields.append(("embedding", pa.list_(pa.float32(), self.size)))
        if self.embeddings == "window":
            fields += [("window_start_seconds", pa.list_(pa.float32())),
                       ("window_embeddings", pa.list_(pa.list_(pa.float32(), self.size)))]  # fmt: skip
        return pa.schema(fields)

    def rows(self, names: Iterable[str]) -> Iterator[dict]:
        """Yield a row for each file, in their order: what is heard in it, or the `error` that kept it from being read."""
        asked = {"all_labels": True, "return_timeline": True, "skip_unreadable": True}
        asked |= {"return_windows": self.embeddings is not None, "num_workers": self.workers}
        waiting: deque[str] = deque()

        def inputs() -> Iterator[str | Address]:
            for name in names:
                waiting.append(name)
                yield Address(name) if is_address(name) else name

        for result in self.recognise(inputs(), **asked):
            yield self.row(waiting.popleft(), result)

    def row(self, name: str, result: dict) -> dict:
        """Return the row of one file."""
        if "error" in result:
            return {"path": to_text(name), "error": to_text(result["error"])}
        row = result_row(name, result, heard_in(result, None), self.recognise.labels, "parquet")
        row |= {"error": None, "timeline": [timeline_row(name, segment) for segment in result["timeline"]]}
        if self.embeddings == "file":
            row["embedding"] = result["windows"]["embeddings"].mean(axis=0)
        elif self.embeddings == "window":
            windows = result["windows"]
            row |= {"window_start_seconds": windows["start_seconds"], "window_embeddings": list(windows["embeddings"])}
        return row

    def tag(self, names: Iterable[str], parts: Parts) -> Iterator[dict]:
        """Write the parts of `names` that are not finished; yields each row when its file is heard."""
        begun: deque[tuple[int, list[str]]] = deque()

        def todo() -> Iterator[str]:
            for part in parts.without_finished(names):
                begun.append(part)
                yield from part[1]

        rows: list[dict] = []
        for row in self.rows(todo()):
            rows.append(row)
            number, of_part = begun[0]
            if len(rows) == len(of_part):
                parts.write(number, of_part, rows, self.schema)
                begun.popleft()
                rows = []
            yield row

    def fingerprint(self) -> str:
        """Return a checksum of the model's weights, so that a part is never resumed with others."""
        sum_so_far = 0
        for tensor in self.recognise.model.state_dict().values():
            sum_so_far = zlib.crc32(tensor.detach().cpu().float().contiguous().numpy().tobytes(), sum_so_far)
        return f"{sum_so_far:08x}"


def check_network(recognise: InstrumentRecognitionPipeline, flag: str) -> None:
    """Raise UserError for a flag that only a network has a use for, where the model is none."""
    if next(recognise.model.parameters(), None) is None:
        raise UserError(f"--{flag} is for networks: this model has no layers.")


def scores_of(recognise: InstrumentRecognitionPipeline, names: list[str]) -> np.ndarray:
    """Return the scores (files, labels) of the files that can be read."""
    heard = recognise(list(names), all_labels=True, return_timeline=True, skip_unreadable=True)
    scores = [{entry["label"]: entry["score"] for entry in one["instruments"]} for one in heard if "error" not in one]
    return np.array([[of_file[label] for label in recognise.labels] for of_file in scores])


def count_unread(rows: Iterable[dict]) -> Counter:
    """Read all rows; return how many are of files that were heard, and how many not."""
    return Counter("unread" if row["error"] is not None else "heard" for row in rows)
