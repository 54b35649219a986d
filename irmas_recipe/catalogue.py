"""A step of DataTrove that tags music: its executors spread the work over processes, a Slurm cluster or Ray.

    from datatrove.executor import LocalPipelineExecutor
    from irmas_recipe.catalogue import TagMusic

    if __name__ == "__main__":
        step = TagMusic("runs/mine", lists=["songs.txt"], parts="tags", workers=1)
        LocalPipelineExecutor(pipeline=[step], tasks=100, workers=2, logging_dir="logs").run()

DataTrove is an optional extra: pip install "irmas-recipe[catalogue]". It marks each task that has ended; inside a task the
parts of `predict --parts` have markers of their own, so that a relaunch repeats one part of each task at most.
"""

from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from irmas_recipe.commands.predict.lists import every_name, share_of
from irmas_recipe.commands.predict.parts import Parts
from irmas_recipe.commands.predict.tagging import Tagger
from irmas_recipe.commands.system import load_system


class TagMusic(PipelineStep):
    """Tag the share of one task, of files that lists, folders and addresses name, into Parquet parts."""

    name = "🎻 Tag music"
    type = "🏷️ - TAGGER"

    def __init__(
        self,
        model: str,
        parts: str,
        *,
        paths: list[str] = (),
        lists: list[str] = (),
        column: str = "path",
        part_files: int = 500,
        workers: int = 1,
        embeddings: str | None = None,
        **options: Any,
    ) -> None:
        """Say what is heard by which model.

        Args:
            model: a run folder, the id of a model on the Hub or a released checkpoint.
            parts: the folder that all tasks write to.
            paths, lists, column, part_files, embeddings: as of `irmas predict`.
            workers: processes that decode, in each task.
            options: those of a call of the pipeline, and `device`, `batch_size`, `trust_remote_code`.
        """
        super().__init__()
        self.model, self.parts, self.paths, self.lists = model, parts, list(paths), list(lists)
        self.column, self.part_files, self.workers, self.embeddings = column, part_files, workers, embeddings
        self.options = options

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Tag the files of task `rank` of `world_size`; yields no documents.

        Raises:
            UserError: the model, a list or the folder of parts cannot be used.
        """
        yield from data or ()
        tagger = Tagger(load_system(self.model, **self.options), self.embeddings, self.workers)
        heading = {"model": self.model, "options": self.options, "embeddings": self.embeddings}
        heading["weights_crc32"] = tagger.fingerprint()
        parts = Parts(Path(self.parts), (rank, world_size), self.part_files, heading, resume=True)
        names = share_of(every_name(self.paths, [Path(file) for file in self.lists], self.column), rank, world_size)
        for row in tagger.tag(names, parts):
            self.stat_update("unread" if row["error"] is not None else "heard")
