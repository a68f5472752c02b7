"""Triton itself, from PyTriton's wheel: an ensemble with the networks as models, or one model with all of them.

The wheel has no ONNX Runtime backend, so each model uses Triton's Python backend and holds its sessions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ensemble import SHAPE, arguments, free_port, paths

TITLE = "Triton"
PROTOCOL = "oip"
SETTINGS = {
    "ensemble": "an ensemble model: its scheduler calls all networks at once, an instance each; dynamic batches",
    "in turn": "one model, an instance per core; dynamic batches up to 64 without delay; networks one after the other",
    "at once": "the same; networks of a batch at once, in a thread per core",
    "threads": "one model, one instance; networks one after the other, each with a thread per core",
}
REQUIREMENTS = ("nvidia-pytriton==0.7.0", "onnxruntime==1.31.1")
SHARES = "nvidia"
PYTHON = "/usr/bin/python3"

CLASSES = 100
IMAGES = f'name: "images" data_type: TYPE_UINT8 dims: [{", ".join(map(str, SHAPE))}]'
MODEL = f"""backend: "python"
max_batch_size: 64
input [{{{{ {IMAGES} }}}}]
output [{{{{ name: "probabilities" data_type: TYPE_FP32 dims: [{CLASSES}] }}}}]
instance_group [{{{{ kind: KIND_CPU count: {{instances}} }}}}]
dynamic_batching {{{{ max_queue_delay_microseconds: 0 }}}}
"""
CODE = """import sys
sys.path.insert(0, {here!r})
import numpy as np
import triton_python_backend_utils as utils
from ensemble import Ensemble, Network


class TritonPythonModel:
    def initialize(self, args):
        self.model = {model}

    def execute(self, requests):
        images = [utils.get_input_tensor_by_name(request, "images").as_numpy() for request in requests]
        answers = self.model(np.concatenate(images) if len(images) > 1 else images[0])
        parts = np.split(answers, np.cumsum([len(one) for one in images])[:-1])
        return [utils.InferenceResponse([utils.Tensor("probabilities", part)]) for part in parts]
"""
MEAN = """import numpy as np
import triton_python_backend_utils as utils

NAMES = {names!r}


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            parts = [utils.get_input_tensor_by_name(request, name).as_numpy() for name in NAMES]
            mean = np.add.reduce(parts, 0) / np.float32(len(parts))
            answers.append(utils.InferenceResponse([utils.Tensor("probabilities", mean)]))
        return answers
"""


def write_model(repository: Path, name: str, config: str, code: str = "") -> None:
    """Write one model of the repository."""
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(f'name: "{name}"\n{config}')
    if code:
        (repository / name / "1" / "model.py").write_text(code)


def write_python_model(repository: Path, name: str, model: str, instances: int) -> None:
    """Write a model of the Python backend that calls the expression `model`."""
    code = CODE.format(here=str(Path(__file__).parent), model=model)
    write_model(repository, name, MODEL.format(instances=instances), code)


def write_ensemble(repository: Path, networks: list[Path]) -> None:
    """Write a model per network, their mean, and the ensemble of these."""
    names = [f"network{i}" for i in range(len(networks))]
    for name, path in zip(names, networks, strict=True):
        write_python_model(repository, name, f"Network({str(path)!r})", 1)
    inputs = ", ".join(f'{{ name: "{name}" data_type: TYPE_FP32 dims: [{CLASSES}] }}' for name in names)
    output = f'output [{{ name: "probabilities" data_type: TYPE_FP32 dims: [{CLASSES}] }}]\n'
    combine = f'backend: "python"\nmax_batch_size: 64\ninput [{inputs}]\n{output}'
    combine += "instance_group [{ kind: KIND_CPU }]\ndynamic_batching {}\n"
    write_model(repository, "mean", combine, MEAN.format(names=names))
    step = 'model_name: "{0}" model_version: -1 input_map {{ key: "images" value: "images" }}'
    steps = [f'{{ {step.format(name)} output_map {{ key: "probabilities" value: "{name}" }} }}' for name in names]
    known = " ".join(f'input_map {{ key: "{name}" value: "{name}" }}' for name in names)
    last = 'output_map { key: "probabilities" value: "probabilities" }'
    steps.append(f'{{ model_name: "mean" model_version: -1 {known} {last} }}')
    config = f'platform: "ensemble"\nmax_batch_size: 64\ninput [{{ {IMAGES} }}]\n{output}'
    write_model(repository, "ensemble", config + f"ensemble_scheduling {{ step [{', '.join(steps)}] }}\n")


def main() -> None:
    """Prepare server and repository as PyTriton does, then serve."""
    folder, port, cores, setting = arguments()
    import pytriton

    home = Path(pytriton.__file__).parent
    with tempfile.TemporaryDirectory() as place:
        backends = Path(place) / "backends"
        shutil.copytree(home / "tritonserver" / "backends", backends)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = home / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub"
        shutil.copy(stub, backends / "python")
        if setting == "ensemble":
            write_ensemble(Path(place) / "models", paths(folder))
        else:
            threads, helpers = cores if setting == "threads" else 1, cores - 1 if setting == "at once" else 0
            model = f"Ensemble({str(folder)!r}, {threads}, {helpers})"
            write_python_model(Path(place) / "models", "ensemble", model, 1 if setting == "threads" else cores)
        environment = dict(os.environ)
        environment["LD_LIBRARY_PATH"] = str(home.parent / "nvidia_pytriton.libs")
        environment["PYTHONPATH"] = str(home.parent)
        command = [str(home / "tritonserver" / "bin" / "tritonserver"), f"--model-repository={place}/models"]
        command += [f"--backend-directory={backends}", "--http-address=127.0.0.1", f"--http-port={port}"]
        command += ["--allow-grpc=false", "--allow-metrics=false", f"--metrics-port={free_port()}"]
        subprocess.run(command, env=environment, check=False)


if __name__ == "__main__":
    main()
