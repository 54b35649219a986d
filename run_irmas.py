#!/usr/bin/env python3
"""The table of contents: what each verb and each kind of recipe runs, and the main job from recipe to Hub.

accelerate launch run_irmas.py recipes/ast/finetune.yaml [--field value ...]
irmas VERB ...                    (in a clone also: python run_irmas.py VERB ...)
"""

from irmas_dataset.errors import start


def main(arguments: list[str]) -> None:
    """Run a verb, or the system that a recipe names; without either, say what there is."""
    if not arguments or arguments[0] in ("--help", "-h"):
        print(overview())
    elif arguments[0] in VERBS:
        VERBS[arguments[0]](arguments[1:])
    else:
        from irmas_recipe.training.recipe_file import system_of

        SYSTEMS[system_of(arguments, list(VERBS))](arguments)


def network(arguments: list[str]) -> None:
    """Recipe -> data -> model -> Trainer -> evaluation -> report -> Hub."""
    from irmas_recipe.training.recipe import parse_recipe

    recipe = parse_recipe(arguments)  # `--help` ends here, before the imports that take seconds

    from irmas_recipe.report.heard import check_starts
    from irmas_recipe.report.share import push
    from irmas_recipe.report.write import collect, report, show
    from irmas_recipe.training.checkpoint import save
    from irmas_recipe.training.data import check_before_training, load_data, prepare_splits
    from irmas_recipe.training.evaluation import evaluate
    from irmas_recipe.training.model import build_model
    from irmas_recipe.training.origin import check_origin
    from irmas_recipe.training.processes import end
    from irmas_recipe.training.rehearsal import rehearse
    from irmas_recipe.training.run_folder import begin
    from irmas_recipe.training.train import build_trainer, train

    folder = begin(recipe)
    if folder.is_finished:
        show(recipe, folder)
        push(recipe)
        return
    rehearse(recipe)
    splits = load_data(recipe.data)
    check_before_training(recipe, splits)
    check_starts(recipe, splits["test"])
    model, feature_extractor = build_model(recipe, splits)
    prepared = prepare_splits(splits, recipe.data, feature_extractor.sampling_rate)
    trainer = build_trainer(recipe, prepared, model, feature_extractor)
    check_origin(folder.checkpoint, trainer.made_from)
    if trainer.args.should_save:  # one process, or two would rename one file
        folder.claim(recipe)
    cost = train(recipe, trainer, folder.checkpoint)
    evaluation = evaluate(recipe, prepared, trainer)
    save(recipe, trainer)
    results = collect(recipe, splits, evaluation, cost)
    report(recipe, trainer, results, folder)
    push(recipe)
    end(trainer)


def classical(arguments: list[str]) -> None:
    """Hand-made features and a classifier."""
    from irmas_recipe.baselines.classical.recipe import parse_classical_recipe

    recipe = parse_classical_recipe(arguments)
    from irmas_recipe.baselines.classical.main import main

    main(recipe)


def wavegan(arguments: list[str]) -> None:
    """A generator of training clips."""
    from irmas_recipe.baselines.wavegan.recipe import parse_wavegan_recipe

    recipe = parse_wavegan_recipe(arguments)
    from irmas_recipe.baselines.wavegan.main import main

    main(recipe)


def fusion(arguments: list[str]) -> None:
    """Finished runs that a recipe lists, as one system."""
    from irmas_recipe.commands.ensemble.arguments import parse_ensemble_recipe

    recipe = parse_ensemble_recipe(arguments)
    from irmas_recipe.commands.ensemble.main import main

    main(recipe)


def ensemble(arguments: list[str]) -> None:
    """RUN... --output_dir D: several finished runs as one system, fused from their scores"""
    from irmas_recipe.commands.ensemble.arguments import parse_arguments

    recipe = parse_arguments(arguments)
    from irmas_recipe.commands.ensemble.main import main

    main(recipe)


def audit(arguments: list[str]) -> None:
    """--data_dir D --output_dir O: find copies, silence and doubtful labels in a data folder"""
    from irmas_recipe.commands.audit import main

    main(arguments)


def benchmark(arguments: list[str]) -> None:
    """RECIPE: how fast this machine decodes, trains, evaluates and tags with a recipe"""
    from irmas_recipe.commands.benchmark.main import main

    main(arguments)


def compare(arguments: list[str]) -> None:
    """RUN...: finished runs side by side, with intervals of their differences"""
    from irmas_recipe.commands.compare import main

    main(arguments)


def convert(arguments: list[str]) -> None:
    """ARCHITECTURE FILE DIR, or --released NAME: turn released weights into a model folder"""
    from irmas_recipe.commands.convert import main

    main(arguments)


def demo(arguments: list[str]) -> None:
    """MODEL: a page on this machine that hears music and shows its instruments"""
    from irmas_recipe.commands.demo.main import main

    main(arguments)


def doctor(arguments: list[str]) -> None:
    """check this machine, and say how to fix what is missing"""
    from irmas_recipe.commands.doctor import main

    main(arguments)


def download(arguments: list[str]) -> None:
    """--data_dir D: fetch IRMAS, check it, extract it"""
    from irmas_recipe.commands.download import main

    main(arguments)


def evaluate(arguments: list[str]) -> None:
    """MODEL: measure a trained model on a test set, by the protocol stored with it"""
    from irmas_recipe.commands.evaluate.main import main

    main(arguments)


def export(arguments: list[str]) -> None:
    """--data_dir D --output_dir O: write a data folder as a Hub dataset"""
    from irmas_recipe.commands.export import main

    main(arguments)


def models(arguments: list[str]) -> None:
    """what every architecture and released checkpoint costs, and the recipe to start with"""
    from irmas_recipe.commands.models import main

    main(arguments)


def onnx(arguments: list[str]) -> None:
    """MODEL DIR: a model as one ONNX graph, for machines without torch"""
    from irmas_recipe.commands.onnx.main import main

    main(arguments)


def predict(arguments: list[str]) -> None:
    """[MODEL] PATH...: which instruments are heard in audio files, and when"""
    from irmas_recipe.commands.predict.main import main

    main(arguments)


def segments(arguments: list[str]) -> None:
    """MODEL PATH... --output_dir D: cut music into class folders by what a model hears, to listen to and correct"""
    from irmas_recipe.commands.segments.main import main

    main(arguments)


def synthesize(arguments: list[str]) -> None:
    """DIR: write an IRMAS of made music, to try everything without a download"""
    from irmas_recipe.commands.synthesize import main

    main(arguments)


VERBS = {
    "predict": predict,
    "evaluate": evaluate,
    "compare": compare,
    "ensemble": ensemble,
    "segments": segments,
    "audit": audit,
    "download": download,
    "synthesize": synthesize,
    "export": export,
    "convert": convert,
    "models": models,
    "doctor": doctor,
    "benchmark": benchmark,
    "demo": demo,
    "onnx": onnx,
}
"""First word of a command -> what it runs; the docstring is its line of `--help`."""

SYSTEMS = {"network": network, "classical": classical, "wavegan": wavegan, "ensemble": fusion}
"""What a recipe names as its `system` (a network's names none) -> what runs it."""


def overview() -> str:
    """Return what `--help` says: how to run a recipe, and the verbs, one line each."""
    lines = [
        "irmas RECIPE [--field value ...]",
        "    train, evaluate and report a recipe, such as ast/finetune; with --help: its fields",
    ]
    for name, verb in VERBS.items():
        usage, _, words = verb.__doc__.rpartition(": ")
        lines += [f"irmas {name} {usage}".rstrip(), f"    {words}"]
    return "\n".join([*lines, "", "In a clone, `python run_irmas.py` is the same program."])


def run() -> None:
    """Start the program with the shell's arguments: the console command `irmas`."""
    start(main)


if __name__ == "__main__":
    run()
