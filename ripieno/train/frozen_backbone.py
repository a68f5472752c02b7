"""A network's pretrained backbone as the run keeps it, and the features of the data set's samples by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripieno.library import Library
from ripieno.library.backbones import weights_file
from ripieno.models.backbone_id import BackboneId, split_stem
from ripieno.models.backbone_weights import load_backbone, load_encoder
from ripieno.models.build import Network
from ripieno.models.parts import count_features
from ripieno.models.smp_network import SmpBody
from ripieno.models.timm_config import BackboneConfig, backbone_config
from ripieno.models.timm_network import TimmBody, native_resolution
from ripieno.train.features import cached_features
from ripieno.train.training_config import TrainingConfig
from ripieno.types import Configuration, Dataset, Float32s, ProgressFunction


class FrozenBackbone:
    """The kept backbone that a network starts from; its features are read from the cache of the run."""

    def __init__(self, key: BackboneId, config: BackboneConfig, path: Path, dataset: Dataset) -> None:
        self.id, self.config = key, config
        self._path, self._dataset = path, dataset
        self._cached: Float32s | None = None
        self.progress: ProgressFunction | None = None
        """callback of the computation; None: the log"""

    def features(self, network: Network, rows: NDArray[np.int64]) -> Tensor:
        """Return the features (rows, features), on the CPU, of samples of the train or validation split.

        See `cached`, which the first call in a run computes.
        """
        return torch.from_numpy(np.ascontiguousarray(self.cached(network)[rows]))

    def cached(self, network: Network) -> Float32s:
        """Return the features (samples, features) of the whole data set, memory-mapped; see `ripieno.train.features`.

        `network` must have the backbone as it is kept when they are computed, at the first call in a run.
        """
        if self._cached is None:
            device = network.mean.device

            def compute(inputs: NDArray[Any]) -> Float32s:
                # no TF32: members are served in full precision
                with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                    found: Float32s = network.forward_features(torch.from_numpy(inputs).to(device)).cpu().numpy()
                return found

            was_training = network.training
            network.eval()
            self._cached = cached_features(self._path, self._dataset, count_features(network), compute, self.progress)
            network.train(was_training)
        return self._cached


def load_pretrained(
    network: Network, config: TrainingConfig, configuration: Configuration, dataset: Dataset
) -> FrozenBackbone | None:
    """Load the run's weights into the backbone of `network`, on the CPU; None where it has none, and starts random.

    An encoder of a network of smp gets them too, but it is not frozen: None is returned. Raises LibraryError when the
    file is absent or of another network.
    """
    library, digests = Library(config.run), dict(map(split_stem, config.weights))
    if isinstance(network.body, SmpBody):
        if digest := digests.get(network.body.timm_name):
            load_encoder(network.body, weights_file(library.path, f"{network.body.timm_name}-{digest}"))
        return None
    if not isinstance(network.body, TimmBody) or not config.weights:
        return None
    chosen = backbone_config(config.family, configuration)
    if chosen.backbone not in digests:
        return None
    resolution = chosen.resolution or native_resolution(chosen.backbone)
    found = BackboneId(chosen.backbone, digests[chosen.backbone], resolution)
    load_backbone(network.body.backbone, weights_file(library.path, found.stem))
    network.body.keeps_statistics = True
    return FrozenBackbone(found, chosen, library.features_path(str(found)), dataset)
