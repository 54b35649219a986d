"""`irmas onnx MODEL OUTPUT_DIR`: a model as one ONNX graph, from waveforms to logits, for machines without torch."""

from pathlib import Path

from irmas_dataset.whole_file import whole_folder
from irmas_recipe.commands.onnx.arguments import parse_arguments

INT8_GRAPH = "model-int8.onnx"


def main(argv: list[str]) -> None:
    """Write model.onnx and model.json, and with --int8 also model-int8.onnx; with --measure print what they cost."""
    args = parse_arguments(argv)

    from irmas_recipe.commands.onnx.export import (
        WaveformClassifier,
        description,
        export_onnx,
        require_onnx,
        write_description,
    )
    from irmas_recipe.training.recogniser import load_recogniser  # these need torch, which takes seconds

    require_onnx()
    recognise = load_recogniser(
        args.model, device="cpu", trust_remote_code=args.trust_remote_code, window_seconds=args.window_seconds
    )
    window_and_hop = recognise.window_and_hop(args.window_seconds)
    facts = description(recognise, *window_and_hop)
    classifier = WaveformClassifier(recognise.model, recognise.feature_extractor)
    files = {"onnx": "model.onnx"} | ({"onnx int8": INT8_GRAPH} if args.int8 else {})
    with whole_folder(args.output_dir) as folder:
        difference = export_onnx(classifier, facts["window_samples"], folder / files["onnx"])
        if args.int8:
            from irmas_recipe.commands.onnx.quantisation import quantise

            layers = quantise(folder / files["onnx"], folder / INT8_GRAPH)
        write_description(folder / "model.json", graphs=list(files.values()), **facts)
    graphs = {name: args.output_dir / file for name, file in files.items()}
    print(
        f"{graphs['onnx']} ({megabytes(graphs['onnx'])}): waveforms (batch, {facts['window_samples']}) at "
        f"{facts['sampling_rate']} Hz -> logits (batch, {len(recognise.labels)}); equal to torch within {difference:.0e}."
    )
    if args.int8:
        print(f"{graphs['onnx int8']} ({megabytes(graphs['onnx int8'])}): {layers} linear layers with 8-bit weights.")
    else:
        (args.output_dir / INT8_GRAPH).unlink(missing_ok=True)  # of an earlier export: it is another model's graph
    if args.measure:
        from irmas_recipe.commands.onnx.measurement import measure

        print("\n" + measure(args, classifier, graphs, window_and_hop))


def megabytes(path: Path) -> str:
    """Return a file's size in words."""
    return f"{path.stat().st_size / 1e6:.1f} MB"
