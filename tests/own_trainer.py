"""Trainers of a user, for tests: softmax regression by steps of gradient descent, and some that are wrong."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np


class Linear:
    """Softmax regression; every epoch is five steps on random batches."""

    unit = "steps"

    def start(self, job, data):
        rows = data.rows("train")
        self.inputs = data.inputs[rows].reshape(len(rows), -1).astype(np.float32) / 255
        self.labels = data.targets[rows]
        self.rate = float(job.configuration["rate"])
        self.weights = np.zeros((self.inputs.shape[1], len(data.task.names)), np.float32)
        self.seed, self.done = job.seed, 0

    def epoch(self):
        random = np.random.default_rng((self.seed, self.done))
        for _ in range(5):
            rows = random.integers(len(self.inputs), size=32)
            residual = self._softmax(self.inputs[rows])
            residual[np.arange(32), self.labels[rows]] -= 1
            self.weights -= self.rate * self.inputs[rows].T @ residual / 32
        self.done += 1
        return float(np.abs(residual).mean())

    def _softmax(self, inputs):
        outputs = np.exp(inputs @ self.weights)
        return outputs / outputs.sum(1, keepdims=True)

    def predict(self, inputs):
        return self._softmax(inputs.reshape(len(inputs), -1).astype(np.float32) / 255)

    def tensors(self):
        return {"weights": self.weights, "done": np.array(self.done)}

    def load(self, tensors):
        self.weights, self.done = tensors["weights"].copy(), int(tensors["done"])

    def export(self, path: Path) -> None:
        from onnx import TensorProto, helper, numpy_helper

        nodes = [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("Cast", ["flat"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["floats", "scale"], ["small"]),
            helper.make_node("MatMul", ["small", "weights"], ["outputs"]),
            helper.make_node("Softmax", ["outputs"], ["y"], axis=1),
        ]
        constants = {"weights": self.weights, "scale": np.float32(1 / 255)}
        graph = helper.make_graph(
            nodes,
            "linear",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", 8, 8, 1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", self.weights.shape[1]])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path.write_bytes(model.SerializeToString())


class Forgetful(Linear):
    """Keeps no tensors, and has no export."""

    unit = "rounds"

    def tensors(self):
        return None

    def __getattribute__(self, name):
        if name == "export":
            raise AttributeError(name)
        return super().__getattribute__(name)


class Killed(Linear):
    """Notes its calls in the folder `OWN_TRAINER`, and kills its processes in the third epoch of a trial, once."""

    def _note(self, call):
        with (Path(os.environ["OWN_TRAINER"]) / str(self.trial)).open("a") as file:
            file.write(call + "\n")

    def start(self, job, data):
        super().start(job, data)
        self.trial = job.trial
        self._note("start")

    def load(self, tensors):
        super().load(tensors)
        self._note("load")

    def epoch(self):
        self._note(f"epoch {self.done + 1}")
        victim = Path(os.environ["OWN_TRAINER"]) / "victim"
        if self.done == 2 and not victim.exists():
            victim.write_text(str(self.trial))
            if os.environ["OWN_TRAINER_KILLS"] == "worker":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(1.5)  # so that the log has the line of the promotion
            os.killpg(0, signal.SIGKILL)
        return super().epoch()


class KilledForgetful(Killed):
    """`Killed`, without tensors."""

    def tensors(self):
        return None


class Flat(Linear):
    def predict(self, inputs):
        return super().predict(inputs)[:, 0]


class Logits(Linear):
    def _softmax(self, inputs):
        return np.abs(inputs @ self.weights) + 3


class Objects(Linear):
    def tensors(self):
        return {"weights": self.weights.tolist()}


class Other(Linear):
    def export(self, path):
        self.weights = self.weights + np.linspace(0, 1, 10, dtype=np.float32)
        super().export(path)


class Passes(Linear):
    unit = "passes"


class Broken(Linear):
    def epoch(self):
        raise ZeroDivisionError("no\nluck")


class Nothing:
    def start(self, job, data): ...
    def epoch(self): ...


number = 3


class Reporting(Linear):
    """Reports a number: how far the weights have come, by the name `way`."""

    reports = ("way",)

    def values(self):
        return {"way": float(np.abs(self.weights).sum())}
