"""PyTorch, eager: the reference every other backend is compared with."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.backends.images import checked
from ripieno.errors import EngineError, LibraryError, need
from ripieno.types import Device, Member


class TorchBackend:
    """A member's weights run by PyTorch. Not thread-safe: one lane owns it."""

    def __init__(
        self, path: Path, member: Member, device: Device, threads: int = 1, *, trusted: Collection[str] = ()
    ) -> None:
        """Build the member's network on `device` with the weights at `path` (`weights.safetensors`).

        `trusted` names the families of the user's own that may be imported. Raises LibraryError when the weights are
        absent or another network's, EngineError when the device is not there, ModelError for an untrusted family.
        """
        self._torch = need("torch")
        self.member, self.threads = member, threads
        if device.type == "cuda" and not self._torch.cuda.is_available():
            raise EngineError(f"{device.name} is not there: this PyTorch sees no CUDA device; use cpu:0")
        self._device = device.name if device.type == "cuda" else "cpu"
        network = load_network(member, path, trusted)
        self._network: Any = network.to(self._device, memory_format=self._torch.channels_last)

    def infer(self, images: NDArray[np.generic]) -> NDArray[np.float32]:
        """Probabilities (batch, classes) of `images` (batch, *member.input.shape), of the member's dtype."""
        torch = self._torch
        images = checked(images, self.member)
        if self._network is None:
            raise EngineError(f"{self.member.id} is closed: load it again")
        if not len(images):
            return np.empty((0, len(self.member.classes)), np.float32)
        if torch.get_num_threads() != self.threads:  # set for the calling thread, which owns this lane
            torch.set_num_threads(self.threads)
        with torch.inference_mode():
            # torch cannot see memory that may not be written
            batch = torch.from_numpy(images if images.flags.writeable else images.copy()).to(self._device)
            answers: NDArray[np.float32] = torch.softmax(self._network(batch).float(), 1).cpu().numpy()
        return answers

    def close(self) -> None:
        """Free the network."""
        self._network = None


def load_network(member: Member, path: Path, trusted: Collection[str] = ()) -> Any:
    """The member's network in evaluation mode, on the CPU, with the weights at `path`.

    Raises LibraryError when they are absent or do not fit, ModelError for a family not in `trusted`.
    """
    need("torch")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ripieno.models.build import build

    network = build(member.family, member.configuration, member.input, len(member.classes), trusted=trusted)
    try:
        network.load_state_dict(load_file(path))
    except FileNotFoundError as error:
        raise LibraryError(f"{path} does not exist: {member.id} has no weights") from error
    except (OSError, SafetensorError) as error:
        raise LibraryError(f"{path} is no readable safetensors file: {error}") from error
    except RuntimeError as error:
        raise LibraryError(f"{path} holds the weights of another network than {member.id}: train it again") from error
    return network.eval()
