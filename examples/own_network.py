"""A new family of networks and a new sampler, searched like the built-in ones.

    python examples/own_network.py images --hours 0.05

The family is a function `(configuration, input, classes) -> torch.nn.Module`, here an MLP-Mixer. The sampler is an
Optuna sampler, here one that stays near the best configurations so far. Neither changes ripieno's own code.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna import Study
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

import ripieno
from ripieno.search import SAMPLERS
from ripieno.search.in_memory_study import ranked
from ripieno.types import Configuration, Input

if TYPE_CHECKING:
    from torch import nn

SPACE = {
    "family": "own_network:mixer",  # module:function, importable by worker processes
    "ranges": {
        "patch": {"kind": "categorical", "choices": [2, 4]},
        "features": {"kind": "integer", "low": 16, "high": 64, "log": True},
        "layers": {"kind": "integer", "low": 1, "high": 4},
        "learning_rate": {"kind": "continuous", "low": 1e-3, "high": 1e-2, "log": True},
        "batch_size": {"kind": "integer", "low": 32, "high": 128, "log": True},
    },
    "fixed": {"optimizer": "adamw", "schedule": "rung"},
}
"""Training's own names (learning_rate, batch_size, ...) keep their meaning; all others belong to the family."""


def mixer(configuration: Configuration, input: Input, classes: int) -> nn.Module:
    """Return an MLP-Mixer: patches of the image, mixed over positions and over features in turn."""
    import torch
    from torch import nn

    height, width, channels = input.shape
    patch, features = int(configuration["patch"]), int(configuration["features"])
    places = (height // patch) * (width // patch)

    class Mixed(nn.Module):
        def __init__(self, size: int, over_places: bool) -> None:
            super().__init__()
            self.over_places = over_places
            self.norm = nn.LayerNorm(features)
            self.mix = nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = self.norm(x)
            return x + (self.mix(seen.transpose(1, 2)).transpose(1, 2) if self.over_places else self.mix(seen))

    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=1)

    class Places(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(2).transpose(1, 2)  # (batch, places, features)

    pair = ((places, True), (features, False))
    layers = [Mixed(size, over) for _ in range(int(configuration["layers"])) for size, over in pair]
    stem = nn.Conv2d(channels, features, patch, patch)
    return nn.Sequential(stem, Places(), *layers, nn.LayerNorm(features), Mean(), nn.Linear(features, classes))


class Near(BaseSampler):
    """Sampler near the best: half random configurations, half one of the three best with one value redrawn.

    ripieno creates a sampler for every trial, from that trial's seed: it has no state and reads the study.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.fresh = RandomSampler(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        """Return the jointly sampled ranges: all, once three trials have a result."""
        best = ranked(study)[:3]
        return dict(best[0].distributions) if len(best) == 3 else {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """Return values for the ranges; `sample_independent` samples the rest."""
        if not search_space or self.random.random() < 0.5:
            return {}
        parent = ranked(study)[self.random.integers(3)]
        redrawn = list(search_space)[self.random.integers(len(search_space))]
        return {name: value for name, value in parent.params.items() if name != redrawn}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        """Return a random value."""
        return self.fresh.sample_independent(study, trial, param_name, param_distribution)


def main(words: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="a folder with a folder of images per class")
    parser.add_argument("--run", default="own-run", type=Path)
    parser.add_argument("--hours", type=float, default=0.25)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--pool", default="local")
    options = parser.parse_args(words)

    SAMPLERS["near"] = Near
    space = options.run.with_suffix(".json")
    space.write_text(json.dumps(SPACE, indent=2))
    library = ripieno.tune(
        options.images,
        options.run,
        hours=options.hours,
        trials=options.trials,
        epochs=options.epochs,
        space=str(space),
        family="own_network:mixer",  # code runs only if you name it here, not because a file names it
        algorithm="hyperband+near",
        pool=options.pool,
        free="off",  # members of this family only, no trees
    )
    best = min(library.members(), key=lambda m: m.loss)
    print(f"{len(library)} networks; {best.id} has {best.losses['valid_accuracy']:.2%} validation accuracy")
    print(f"its configuration: {dict(best.configuration)}")
    ensembles = ripieno.select(library, trusted=["own_network:mixer"])
    for ensemble in ensembles:
        accuracy = ensemble.losses["test_accuracy"]
        print(f"{ensemble.name}: {len(ensemble.members)} members, {accuracy:.2%} test accuracy")


if __name__ == "__main__":
    main()
