"""Mutated requests against a real server: none may cause a 5xx (except 503, 504), a crash or memory growth.

    python benchmarks/serving/fuzz.py [--requests 100000] [--seed 0]

Valid requests of every kind (JSON, raw tensors, samples alone, pictures, forms, protobufs over gRPC) have bytes
changed, cut, doubled and exchanged. Writes benchmarks/results/serving-fuzz.{json,txt}: statuses by kind, and memory.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import grpc
import numpy as np
import psutil
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[2]))
from record import record

from ripieno.server.proto import SERVICE, message
from tests.server.stand_in import write_small_bundle

SERVE = (
    "import sys; from ripieno.server import Limits, serve;"
    "say = lambda text: print(text, flush=True);"
    "serve(sys.argv[1], port=0, grpc_port=0, limits=Limits(timeout=5, body_timeout=2), ready=say, grpc_ready=say)"
)
INTERESTING = [b"", b"0", b"-1", b"1e999", b"null", b"[]", b"{}", b'"', b"\0", b"\xff" * 4, b"9" * 30, b"[" * 50, b","]


def good() -> dict[str, tuple[str, dict[str, str], bytes]]:
    """Return a valid request of each kind: path, headers, body."""
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    infer = "/v2/models/ensemble/infer"
    tensor = {"name": "images", "shape": [2, 8, 8, 3], "datatype": "UINT8"}
    outputs = [{"name": name, "parameters": {"binary_data": True}} for name in ("probabilities", "label", "members")]
    rest = {"id": "x", "outputs": outputs, "parameters": {"timeout": 4_000_000, "partial": True}}
    flat = json.dumps({"inputs": [{**tensor, "data": images.ravel().tolist()}], **rest}).encode()
    deep = json.dumps({"inputs": [{**tensor, "datatype": "FP32", "data": images.tolist()}], **rest}).encode()
    sized = {**tensor, "parameters": {"binary_data_size": images.nbytes}}
    head = json.dumps({"inputs": [sized], **rest}).encode()
    pictures = {}
    for kind in ("PNG", "JPEG", "WEBP"):
        buffer = io.BytesIO()
        Image.fromarray(np.kron(images[0], np.ones((4, 4, 1), np.uint8))).save(buffer, kind)
        pictures[kind] = buffer.getvalue()
    part = b'--b\r\nContent-Disposition: form-data; name="p"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n'
    form = {"content-type": "multipart/form-data; boundary=b"}
    return {
        "JSON flat": (infer, {}, flat),
        "JSON nested": (infer, {}, deep),
        "raw tensors": (infer, {"inference-header-content-length": str(len(head))}, head + images.tobytes()),
        "samples": (infer, {"inference-header-content-length": "0"}, images.tobytes()),
        **{kind: ("/predict?members=true", {}, data) for kind, data in pictures.items()},
        "form": ("/predict", form, part + pictures["PNG"] + b"\r\n--b--\r\n"),
    }


def protobuf() -> bytes:
    """Return a valid gRPC request."""
    request = message("ModelInferRequest")(model_name="ensemble", id="x", raw_input_contents=[bytes(384)])
    request.inputs.add(name="images", datatype="UINT8", shape=[2, 8, 8, 3])
    request.outputs.add(name="probabilities").parameters["classification"].int64_param = 2
    request.parameters["timeout"].int64_param = 4_000_000
    return request.SerializeToString()


def mutated(body: bytes, dice: random.Random) -> bytes:
    """Return `body` with one to four mutations."""
    made = bytearray(body)
    for _ in range(dice.choice((1, 1, 2, 4))):
        at = dice.randrange(len(made) + 1)
        to = min(len(made), at + dice.choice((1, 2, 8, 64)))
        match dice.randrange(6):
            case 0:
                made[at:to] = dice.randbytes(to - at)
            case 1:
                del made[at:to]
            case 2:
                made[at:at] = dice.choice(INTERESTING)
            case 3:
                made[at:to] = dice.choice(INTERESTING)
            case 4:
                made[at:at] = made[at:to] * dice.choice((1, 2, 100))
            case 5:
                del made[at:]
    return bytes(made)


class Http:
    """A persistent connection that reconnects after the server closes it."""

    def __init__(self, url: str) -> None:
        self.address = url.removeprefix("http://")
        self.connection = HTTPConnection(self.address, timeout=20)

    def status(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """Return the status of the answer; an error must be one line of JSON."""
        try:
            self.connection.request("POST", path, body, headers)
            response = self.connection.getresponse()
            content = response.read()
        except (HTTPException, OSError):
            self.connection.close()
            self.connection = HTTPConnection(self.address, timeout=20)
            return 0
        if response.status != 200:
            assert "\n" not in json.loads(content)["error"]
        return response.status


def main() -> None:
    """Send, count, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        write_small_bundle(Path(folder))
        server = subprocess.Popen([sys.executable, "-c", SERVE, folder], stdout=subprocess.PIPE, text=True)
        try:
            address, url = (server.stdout.readline().strip() for _ in range(2))
            http = Http(url)
            kinds: dict[str, Callable[[], object]] = {
                kind: lambda path=path, headers=headers, body=body: http.status(path, headers, mutated(body, dice))
                for kind, (path, headers, body) in good().items()
            }
            channel = grpc.insecure_channel(address)
            call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            kinds["protobuf"] = lambda: _grpc_status(call, mutated(protobuf(), dice))
            seen: dict[str, Counter[object]] = {kind: Counter() for kind in kinds}
            grown = []
            for number in range(options.requests):
                kind = list(kinds)[number % len(kinds)]
                seen[kind][kinds[kind]()] += 1
                if number % (options.requests // 10 or 1) == 0:
                    grown.append(psutil.Process(server.pid).memory_info().rss >> 20)
            assert server.poll() is None, "the server process ended"
            path, headers, body = good()["JSON flat"]
            assert http.status(path, headers, body) == 200, "the server no longer answers"
        finally:
            server.terminate()
            code = server.wait(30)
    rows = [{"kind": kind, **{str(s): count for s, count in sorted(c.items(), key=str)}} for kind, c in seen.items()]
    worst = {
        s for c in seen.values() for s in c if s in ("INTERNAL", "UNKNOWN", 0) or (isinstance(s, int) and s >= 500)
    }
    wrong = worst - {503, 504} or "none"
    note = f"resident MiB over the run: {grown}; exit code {code}; forbidden statuses: {wrong}"
    record("serving-fuzz", {"requests": options.requests, "seed": options.seed}, rows, note)


def _grpc_status(call: Callable[..., object], body: bytes) -> str:
    try:
        call(body, timeout=20)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


if __name__ == "__main__":
    main()
