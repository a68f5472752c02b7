"""PyTriton: NVIDIA's Triton in front of Python functions."""

from __future__ import annotations

import numpy as np
from ensemble import SHAPE, Ensemble, arguments, free_port
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

TITLE = "PyTriton"
PROTOCOL = "oip"
SETTINGS = {
    "in turn": "a function per core; dynamic batches up to 64 without delay; networks one after the other",
    "at once": "the same; an idle thread shares the networks of a batch",
    "threads": "one function; dynamic batches; networks one after the other, each with a thread per core",
}
REQUIREMENTS = ("nvidia-pytriton==0.7.0", "onnxruntime==1.31.1")
PYTHON = "/usr/bin/python3"


def main() -> None:
    """Serve."""
    folder, port, cores, setting = arguments()
    whole = setting == "threads"
    ensemble = Ensemble(folder, cores if whole else 1, cores - 1 if setting == "at once" else 0)

    @batch
    def infer(images: np.ndarray) -> dict[str, np.ndarray]:
        return {"probabilities": ensemble(images)}

    config = TritonConfig(
        http_port=port, http_address="127.0.0.1", grpc_port=free_port(), metrics_port=free_port(), log_verbose=0
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="ensemble",
            infer_func=[infer] * (1 if whole else cores),
            inputs=[Tensor(name="images", dtype=np.uint8, shape=SHAPE)],
            outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
            strict=False,
        )
        triton.serve()


if __name__ == "__main__":
    main()
