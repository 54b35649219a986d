"""Upload to the Hub."""

from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_recipe.report.card import write_model_card
from irmas_recipe.training.recipe import Recipe
from irmas_recipe.training.trainer import InstrumentTrainer


def push(recipe: Recipe, trainer: InstrumentTrainer) -> None:
    """Upload the run folder to the Hub with --push_to_hub; private unless --hub_private_repo false."""
    arguments = recipe.training
    if not arguments.push_when_finished or not trainer.is_world_process_zero():
        return
    from huggingface_hub import HfApi

    run_dir = Path(arguments.output_dir)
    api = HfApi(token=arguments.hub_token)
    private = arguments.hub_private_repo is not False
    try:
        repo_id = api.create_repo(arguments.hub_model_id or run_dir.name, private=private, exist_ok=True).repo_id
        if private and not api.repo_info(repo_id).private:
            raise UserError(
                f"--hub_model_id {repo_id} is a public repository: give another, make it private, or add "
                f"--hub_private_repo false. The finished run is in {run_dir}."
            )
        write_model_card(run_dir, repo_id=repo_id)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=run_dir,
            ignore_patterns=["checkpoint-*", "runs/**", "*.unfinished", "training_args.bin", "non_finite_batch_*"],
            commit_message=f"Upload {run_dir.name}",
        )
    except UserError:
        raise
    except Exception as error:  # of the Hub, or of whatever library speaks to it
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--push_to_hub failed ({reason}). The finished run is in {run_dir}.") from error
    print(f"Pushed to https://huggingface.co/{repo_id}" + (" (private)" if private else ""))
