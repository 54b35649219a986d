"""`run_irmas.py onnx MODEL OUTPUT_DIR`: a model as one ONNX graph, from waveforms to logits, for machines without torch."""

import argparse
from pathlib import Path

from irmas_recipe.commands.arguments import check_output_folder
from irmas_recipe.commands.onnx.export import WaveformClassifier, export_onnx, quantise, require_onnx, write_description
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from irmas_recipe.training.recogniser import check_batch_size, load_recogniser


def main(argv: list[str]) -> None:
    """Write model.onnx and model.json, and with --int8 also model-int8.onnx; with --measure say what they cost."""
    args = parse_arguments(argv)
    require_onnx()
    recognise = load_recogniser(
        args.model, device="cpu", trust_remote_code=args.trust_remote_code, window_seconds=args.window_seconds
    )
    window_seconds, hop_seconds = recognise.window_and_hop(args.window_seconds)
    rate = recognise.feature_extractor.sampling_rate
    window_samples, hop_samples = round(window_seconds * rate), max(1, round(hop_seconds * rate))
    args.output_dir.mkdir(parents=True, exist_ok=True)
    graph, int8_graph = args.output_dir / "model.onnx", args.output_dir / "model-int8.onnx"
    if not args.int8:
        int8_graph.unlink(missing_ok=True)  # of an earlier export: it would stand beside another model's graph
    classifier = WaveformClassifier(recognise.model, recognise.feature_extractor)
    difference = export_onnx(classifier, window_samples, graph)
    print(
        f"{graph} ({megabytes(graph)}): waveforms (batch, {window_samples}) at {rate} Hz -> logits (batch, "
        f"{len(recognise.labels)}); equal to torch within {difference:.0e}."
    )
    if args.int8:
        layers = quantise(graph, int8_graph)
        print(f"{int8_graph} ({megabytes(int8_graph)}): {layers} linear layers with weights of 8 bits.")
    description = describe(recognise, window_samples, hop_samples)
    write_description(
        args.output_dir / "model.json", graphs=["model.onnx"] + ["model-int8.onnx"] * args.int8, **description
    )
    if args.measure:
        from irmas_recipe.commands.onnx.measurement import measure

        graphs = {"onnx": graph} | ({"onnx int8": int8_graph} if args.int8 else {})
        print("\n" + measure(args, classifier, graphs, (window_seconds, hop_seconds)))


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the arguments; raises UserError where the output cannot be a folder."""
    parser = argparse.ArgumentParser(
        prog="run_irmas.py onnx",
        description="Write a model as one ONNX graph, from waveforms to logits, for machines without torch.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder of a run, or id of a model on the Hub")
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, help="folder to write the graph to")
    parser.add_argument("--int8", action="store_true", help="write a second graph with weights of 8 bits, for CPUs")
    parser.add_argument("--window_seconds", metavar="S", type=float, help="instead of the model's own")
    parser.add_argument("--measure", action="store_true", help="compare figures on the run's test set, and speed")
    parser.add_argument("--data_dir", metavar="D", help="with --measure: test set (default: the run's)")
    parser.add_argument(
        "--batch_size", metavar="N", type=int, default=8, help="with --measure: windows at once (default: 8)"
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that a model on the Hub brings")
    args = parser.parse_args(argv)
    check_output_folder(args.output_dir, "OUTPUT_DIR")
    check_batch_size(args.batch_size)
    return args


def describe(recognise: InstrumentRecognitionPipeline, window_samples: int, hop_samples: int) -> dict:
    """Return what a program needs beside the graph: labels, thresholds, and how clips become windows and scores."""
    rate = recognise.feature_extractor.sampling_rate
    return {
        "input": "waveforms: float32 (batch, window_samples), mono, in [-1, 1]",
        "output": "logits: float32 (batch, labels)",
        "sampling_rate": rate,
        "separation": getattr(recognise.model.config, "separation", "none"),
        "window_samples": window_samples,
        "hop_samples": hop_samples,
        "window_seconds": window_samples / rate,
        "hop_seconds": hop_samples / rate,
        "aggregation": getattr(recognise.model.config, "aggregation", None) or "mean",
        "labels": recognise.labels,
        "thresholds": recognise.resolve_thresholds(),
    }


def megabytes(path: Path) -> str:
    """Return a file's size in words."""
    return f"{path.stat().st_size / 1e6:.1f} MB"
