"""From an image folder to a running server.

    python examples/folder_to_server.py images --hours 0.05

Searches, selects ensembles for three budgets, places the largest on this machine's devices, serves it and predicts the
test images over HTTP. The server keeps running (`--once` stops it).
"""

from __future__ import annotations

import argparse

import numpy as np

import ripieno
from ripieno.data import open_dataset
from ripieno.server import infer, start_in_thread


def main(words: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="a folder with a folder of images per class")
    parser.add_argument("--run", default="run", help="run folder; an existing one is resumed")
    parser.add_argument("--hours", type=float, default=0.25)
    parser.add_argument("--trials", type=int, help="maximum number of configurations")
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--space", default="auto")
    parser.add_argument("--pool", default="local")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--once", action="store_true", help="exit after the test images are predicted")
    options = parser.parse_args(words)

    # the library stores every network, with its predictions on the validation images
    library = ripieno.tune(
        options.images,
        options.run,
        hours=options.hours,
        trials=options.trials,
        epochs=options.epochs,
        space=options.space,
        pool=options.pool,
    )
    print(f"{len(library)} networks in {options.run}/library")

    # the cost of each network: seconds for 2,000 images, measured alone
    costs = sorted(profile.cost for profile in ripieno.measure(library).values())
    print(f"{len(costs)} of them measured, {costs[0]:.3g} to {costs[-1]:.3g} s for 2,000 images")

    # the best ensembles for one, three and nine times the cost of a median network
    median = costs[len(costs) // 2]
    ensembles = ripieno.select(library, [k * median for k in (1, 3, 9)])
    for ensemble in ensembles:
        accuracy, cost = ensemble.losses["test_accuracy"], ensemble.cost["seconds"]
        print(f"{ensemble.name}: {len(ensemble.members)} members, {cost:.3g} s, {accuracy:.2%} test accuracy")

    # device and batch size of each member; the folder can be copied to another machine of the same kind
    bundle = ripieno.allocate(library, ensembles[-1], max_benches=4)
    print(f"{bundle.allocation.throughput:.0f} images/s measured; deployed in {bundle.path}")

    with start_in_thread(bundle, port=options.port) as server:
        dataset = open_dataset(library.dataset_path)
        rows = dataset.rows("test")
        answers = infer(server.url, np.ascontiguousarray(dataset.inputs[rows]))
        right = (answers.argmax(axis=1) == dataset.targets[rows]).mean()
        print(f"served at {server.url}: {right:.2%} of {len(rows)} test images predicted correctly over HTTP")
        if not options.once:
            input("serving; Enter stops it ")


if __name__ == "__main__":  # workers import this file and must not run the command
    main()
