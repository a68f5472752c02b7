"""Write an image folder to experiment with: one folder of PNG files per class.

    python examples/images.py images                              1,797 handwritten digits included in scikit-learn
    python examples/images.py images --idx ../fashion --count 2000    Fashion-MNIST's or MNIST's idx files

Any other folder of that form works too: your own photographs, for example.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def digits() -> tuple[NDArray[np.uint8], list[str]]:
    """Return images (samples, 8, 8) and the class name of each."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.rint(found.images * (255 / 16)).astype(np.uint8), [f"digit-{label}" for label in found.target]


def idx(folder: str) -> tuple[NDArray[Any], list[str]]:
    """Return images and class names of the four idx files in `folder`."""
    from ripieno.data import load_dataset

    dataset = load_dataset(folder)
    return dataset.inputs[..., 0], [dataset.classes[label] for label in dataset.targets]


def write_folder(folder: Path, images: NDArray[Any], names: list[str], count: int | None = None) -> int:
    """Write `count` random images, in a folder per class; return the number written."""
    if folder.exists():
        raise SystemExit(f"Folder {folder} already exists. Choose another name.")
    order = np.random.default_rng(0).permutation(len(images))[:count]
    for number in order:
        place = folder / names[number].replace("/", "-").replace(" ", "-").lower()
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number]).save(place / f"{number:05d}.png")
    return len(order)


def main(words: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--idx", help="folder of idx files (default: write digits)")
    parser.add_argument("--count", type=int, help="number of images (default: all)")
    options = parser.parse_args(words)
    images, names = idx(options.idx) if options.idx else digits()
    written = write_folder(options.folder, images, names, options.count)
    print(f"wrote {written} images of {len(set(names))} classes to {options.folder}")


if __name__ == "__main__":
    main()
