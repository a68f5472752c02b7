"""From existing ONNX files to a server: no training, and no PyTorch.

    python examples/onnx_to_server.py images a.onnx b.onnx --outputs logits --scale 0.00392
    python examples/onnx_to_server.py images                      creates three small files as an example

The files are evaluated on the validation images and their costs are measured. The best ensemble within the budget is
placed and served. `--layout`, `--scale` and `--outputs` describe inputs and outputs, as in `ripieno import`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import ripieno
from ripieno.data import load_dataset, open_dataset
from ripieno.server import infer, start_in_thread
from ripieno.types import Dataset


def make_files(dataset: Dataset, folder: Path) -> list[Path]:
    """Write three classifiers on random features, solved in NumPy: NCHW images of 0..1 in, logits out."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    rows = dataset.rows("train")
    height, width, channels = dataset.input.shape
    pixels = dataset.inputs[rows].transpose(0, 3, 1, 2).reshape(len(rows), -1) / np.float32(255)
    wanted = np.eye(len(dataset.classes))[dataset.targets[rows]]
    paths = []
    for features in (64, 256, 512):
        generator = np.random.default_rng(features)
        hidden = generator.standard_normal((pixels.shape[1], features)) / np.sqrt(pixels.shape[1] / 8)
        seen = np.maximum(pixels @ hidden, 0)
        # least squares with a little regularisation, scaled by eight for the softmax
        head = 8 * np.linalg.solve(seen.T @ seen + np.eye(features), seen.T @ wanted)
        weights = [numpy_helper.from_array(w.astype(np.float32), n) for n, w in (("hidden", hidden), ("head", head))]
        nodes = [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("MatMul", ["flat", "hidden"], ["raw"]),
            helper.make_node("Relu", ["raw"], ["seen"]),
            helper.make_node("MatMul", ["seen", "head"], ["y"]),
        ]
        shapes = {"x": ["batch", channels, height, width], "y": ["batch", len(dataset.classes)]}
        ends = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()}
        graph = helper.make_graph(nodes, f"features-{features}", [ends["x"]], [ends["y"]], weights)
        path = folder / f"features-{features}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        paths.append(path)
    return paths


def main(words: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="a folder with a folder of images per class, for the evaluation")
    parser.add_argument("files", nargs="*", type=Path, help="ONNX files")
    parser.add_argument("--run", default="onnx-run")
    parser.add_argument("--outputs", default="logits", choices=["logits", "probabilities"])
    parser.add_argument("--layout", default="auto", choices=["auto", "NCHW", "NHWC"])
    parser.add_argument("--scale", type=float, default=1 / 255)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds for 2,000 images, all members together")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--once", action="store_true", help="exit after the test images are predicted")
    options = parser.parse_args(words)

    files = options.files or make_files(load_dataset(options.images), Path(options.run) / "made")
    members = ripieno.import_(
        options.run,
        files,
        data=options.images,
        outputs=options.outputs,
        layout=options.layout,
        scale=options.scale,
        replace=True,
    )
    for member in members:
        print(f"{member.id}: {member.losses['valid_accuracy']:.2%} validation accuracy")

    (ensemble,) = ripieno.select(options.run, options.budget)  # measures missing costs
    print(f"{ensemble.name}: {', '.join(ensemble.members)}, {ensemble.cost['seconds']:.3g} s for 2,000 images")
    bundle = ripieno.allocate(options.run, ensemble, max_benches=4)

    with start_in_thread(bundle, port=options.port) as server:
        dataset = open_dataset(ripieno.Library(options.run).dataset_path)
        rows = dataset.rows("test")
        answers = infer(server.url, np.ascontiguousarray(dataset.inputs[rows]))
        right = (answers.argmax(axis=1) == dataset.targets[rows]).mean()
        print(f"served at {server.url}: {right:.2%} of {len(rows)} test images predicted correctly over HTTP")
        if not options.once:
            input("serving; Enter stops it ")


if __name__ == "__main__":
    main()
