"""A graph whose linear layers have 8-bit weights: smaller, and faster on many CPUs."""

import logging
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from irmas_dataset.errors import UserError
from irmas_recipe.commands.onnx.export import Features

LINEAR = ("MatMul", "Gemm")  # the operators that linear layers become


def quantise(path: Path, int8_path: Path) -> int:
    """Write the graph with the weights of its linear layers in 8 bits; return how many layers that are.

    Dynamic quantisation: activations are rounded while the model runs, each with the scale of its values. The features
    stay in float32, and so do convolutions, which ONNX Runtime computes more slowly in 8 bits.

    Raises:
        UserError: the model has no linear layer.
    """
    graph = onnx.load(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    linear = [node for node in graph.node if node.op_type in LINEAR and node.input[1] in constants]
    of_features = [node.name for node in linear if is_of_features(node)]
    if len(of_features) == len(linear):
        raise UserError(f"{path} has no linear layers whose weights --int8 could round; remove the flag.")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a preparation that changes nothing here
    try:
        quantize_dynamic(
            path,
            int8_path,
            op_types_to_quantize=list(LINEAR),
            nodes_to_exclude=[name + suffix for name in of_features for suffix in ("", "_MatMul")],  # Gemm's new name
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
    return len(linear) - len(of_features)


def is_of_features(node: onnx.NodeProto) -> bool:
    """Return whether a node of the graph came from the feature extractor, by the module path that the exporter notes."""
    notes = [entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.class_hierarchy"]
    return any(Features.__name__ in note for note in notes)
