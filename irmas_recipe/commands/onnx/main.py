"""`irmas onnx MODEL OUTPUT_DIR`: a model as one ONNX graph, from waveforms to logits, for machines without torch."""

from pathlib import Path

from irmas_recipe.commands.onnx.arguments import parse_arguments


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
    args.output_dir.mkdir(parents=True, exist_ok=True)
    graphs = {"onnx": args.output_dir / "model.onnx"}
    int8_graph = args.output_dir / "model-int8.onnx"
    difference = export_onnx(classifier, facts["window_samples"], graphs["onnx"])
    print(
        f"{graphs['onnx']} ({megabytes(graphs['onnx'])}): waveforms (batch, {facts['window_samples']}) at "
        f"{facts['sampling_rate']} Hz -> logits (batch, {len(recognise.labels)}); equal to torch within {difference:.0e}."
    )
    if args.int8:
        from irmas_recipe.commands.onnx.quantisation import quantise

        graphs["onnx int8"] = int8_graph
        layers = quantise(graphs["onnx"], int8_graph)
        print(f"{int8_graph} ({megabytes(int8_graph)}): {layers} linear layers with 8-bit weights.")
    else:
        int8_graph.unlink(missing_ok=True)  # from an earlier export: it would stand beside another model's graph
    write_description(args.output_dir / "model.json", graphs=[graph.name for graph in graphs.values()], **facts)
    if args.measure:
        from irmas_recipe.commands.onnx.measurement import measure

        print("\n" + measure(args, classifier, graphs, window_and_hop))


def megabytes(path: Path) -> str:
    """Return a file's size in words."""
    return f"{path.stat().st_size / 1e6:.1f} MB"
