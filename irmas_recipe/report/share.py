"""Upload a finished run to the Hub."""

from pathlib import Path

from irmas_dataset.hub import upload_folder
from irmas_recipe.report.card import write_card
from irmas_recipe.training.recipe import Recipe

NOT_UPLOADED = [
    ".*",
    "*/.*",
    "checkpoint-*",
    "runs/**",
    "*.unfinished",
    "*training_args.bin",
    "non_finite_batch_*",
]
"""What is not of the finished run. A hidden file, such as `.env`, may have passwords; and the Trainer pickles its arguments
into every checkpoint, the Hub's token among them."""


def push(recipe: Recipe) -> None:
    """Upload the run folder with --push_to_hub; private unless --hub_private_repo false.

    Raises:
        UserError: the Hub refuses, or the repository is public and should not be; the finished run stays where it is.
    """
    arguments = recipe.training
    if not arguments.push_when_finished or arguments.process_index > 0:
        return
    run_dir = Path(arguments.output_dir)
    private = arguments.hub_private_repo is not False
    repo_id = upload_folder(
        run_dir,
        arguments.hub_model_id or run_dir.name,
        repo_type="model",
        private=private,
        token=arguments.hub_token,
        ignore_patterns=NOT_UPLOADED,
        commit_message=f"Upload {run_dir.name}",
        public_flag="--hub_private_repo false",
        before_upload=lambda repo_id: write_card(run_dir, repo_id=repo_id),
    )
    print(f"Pushed to https://huggingface.co/{repo_id}" + (" (private)" if private else ""))
