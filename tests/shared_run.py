"""A run whose members share backbones, with measured costs and the files of costs that are counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import save, save_file

from ripieno.backends.flops import onnx_flops
from ripieno.library import Library
from ripieno.library.backbones import weights_file
from ripieno.models.backbone_id import parse_backbone_id
from ripieno.profiles import local_devices
from ripieno.types import BatchProfile, Profile
from tests.onnx_networks import write_network

CLASSES, FEATURES, SAMPLES = 4, 6, 60
SMALL, LARGE = "mobilenetv2_100-1f2e3d4c-128", "resnet50-0a1b2c3d-224"
BACKBONES = {"00000-e001": SMALL, "00001-e001": SMALL, "00002-e001": SMALL, "00003-e001": LARGE, "00004-e001": LARGE}
"""By member; `00005-e001` is a network of its own."""
NETWORK = "00005-e001"
SECONDS = {SMALL: 4.0, LARGE: 9.0, **dict.fromkeys(BACKBONES, 0.5), NETWORK: 5.0}
"""Of a member without its backbone, and of a backbone."""
MEMORY = {SMALL: 400, LARGE: 900, **dict.fromkeys(BACKBONES, 10), NETWORK: 500}
JOULES_A_SECOND = 30.0
LATENCY = 0.01
"""Of any of them, slower than their batches of eight."""
PARAMETERS = {SMALL: 100, LARGE: 300, **dict.fromkeys(BACKBONES, CLASSES * FEATURES + CLASSES), NETWORK: 200}


def make_shared_run(path: Path) -> Library:
    """Write the run; the members of a backbone err on other samples, the better the later."""
    library, generator = Library(path), np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, SAMPLES)
    for stem in (SMALL, LARGE):
        _write_backbone(library, stem)
    for number, name in enumerate((*BACKBONES, NETWORK)):
        sure = np.where(generator.random(SAMPLES) < 0.6 + 0.03 * number, 0.85, 0.1)
        rows = np.repeat((1 - sure)[:, None] / (CLASSES - 1), CLASSES, axis=1)
        rows[np.arange(SAMPLES), labels] = sure
        member = write_network(path / "model.onnx", name=name, classes=CLASSES)
        losses = {"valid_cross_entropy": float(-np.log(sure).mean()), "valid_accuracy": float((sure > 0.5).mean())}
        member = dataclasses.replace(member, trial=number, losses=losses, parameters=PARAMETERS[NETWORK])
        content = (path / "model.onnx").read_bytes()
        if name in BACKBONES:
            whole = PARAMETERS[name] + PARAMETERS[BACKBONES[name]]
            member = dataclasses.replace(
                member, format="safetensors", backbone=BACKBONES[name], parameters=whole, family="timm:mobilenetv2_100"
            )
            content = save({"body.head.weight": np.zeros((CLASSES, FEATURES), np.float32), **_rest()})
        library.add(member, rows.astype(np.float32), labels, content)
        if name in BACKBONES:
            library.onnx_path(name).write_bytes(_head())
    (path / "model.onnx").unlink()
    device = local_devices("cpu")[0].kind
    library.write_profiles(device, [_profile(name, device) for name in SECONDS])
    return library


def expected_cost(library: Library, members: Iterable[str], kind: str) -> float:
    """Return the cost of an ensemble by the definition: every member and every backbone once."""
    parts = {*members, *(BACKBONES[m] for m in members if m in BACKBONES)}
    if kind == "flops":
        folder = library.path / "backbones"
        return sum(onnx_flops(folder / f"{p}.onnx" if p in (SMALL, LARGE) else library.onnx_path(p)) for p in parts)
    if kind == "bytes":
        folder = library.path / "backbones"
        paths = (folder / f"{p}.onnx" if p in (SMALL, LARGE) else library.onnx_path(p) for p in parts)
        return float(sum(path.stat().st_size for path in paths))
    latency = dict.fromkeys(SECONDS, LATENCY)
    joules = {part: JOULES_A_SECOND * seconds for part, seconds in SECONDS.items()}
    own = {"seconds": SECONDS, "memory": MEMORY, "latency": latency, "joules": joules, "parameters": PARAMETERS}[kind]
    return float(sum(own[part] for part in parts))


def _rest() -> dict[str, np.ndarray]:
    return {"body.head.bias": np.zeros(CLASSES, np.float32), "mean": np.zeros(3, np.float32)}


def _write_backbone(library: Library, backbone: str) -> None:
    target = weights_file(library.path, parse_backbone_id(backbone).stem)
    target.parent.mkdir(parents=True, exist_ok=True)
    count = PARAMETERS[backbone]
    buffers = {"bn.running_mean": np.zeros(7, np.float32), "bn.running_var": np.ones(7, np.float32)}
    counts = {"bn.num_batches_tracked": np.zeros((), np.int64)}
    save_file({"conv.weight": np.zeros((count // 10, 10), np.float32), **buffers, **counts}, target)
    write_network(target.parent / f"{backbone}.onnx", filters=4 if backbone == SMALL else 16)


def _head() -> bytes:
    weight = helper.make_tensor("w", TensorProto.FLOAT, (FEATURES, CLASSES), np.zeros(FEATURES * CLASSES, np.float32))
    given = helper.make_tensor_value_info("features", TensorProto.FLOAT, ("batch", FEATURES))
    found = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ("batch", CLASSES))
    nodes = [helper.make_node("MatMul", ["features", "w"], ["z"]), helper.make_node("Softmax", ["z"], [found.name])]
    graph = helper.make_graph(nodes, "head", [given], [found], [weight])
    content: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()
    onnx.checker.check_model(content)
    return content


def _profile(name: str, device: str) -> Profile:
    points = BatchProfile(1, LATENCY, 0.0, 5), BatchProfile(8, 8 * SECONDS[name] / 2000, 0.0, MEMORY[name])
    return Profile(name, device, "onnx", points, joules=JOULES_A_SECOND * SECONDS[name])
