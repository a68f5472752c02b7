"""schemathesis on the HTTP interface, by the server's own document at `/openapi.json`.

    python benchmarks/serving/schema.py --install        a separate environment, under build/
    python benchmarks/serving/schema.py [--examples 300] [--quick]

Requests conform to the document or violate it, with every method, type and field wrong in turn. No answer may have
a 5xx status (except 503, 504), or a status, content type or body that is not in the document. Writes
benchmarks/results/serving-schema.{json,txt}.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[2]))
from record import record

from tests.server.stand_in import write_small_bundle

HOME = Path(__file__).parents[2] / "build" / "schemathesis"
REQUIREMENT = "schemathesis==4.32.5"
SERVE = (
    "import sys; from ripieno.server import Limits, serve;"
    "serve(sys.argv[1], port=0, limits=Limits(timeout=5, body_timeout=2), ready=lambda u: print(u, flush=True))"
)
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
SETTINGS = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503, 504]
"""


def install() -> None:
    """Make the environment of schemathesis."""
    venv.create(HOME, with_pip=True, clear=True)
    subprocess.run([HOME / "bin" / "pip", "install", "-q", REQUIREMENT], check=True)


def main() -> None:
    """Serve, run schemathesis, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--examples", type=int, default=300, help="requests of each kind per operation at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="15 of each kind")
    options = parser.parse_args()
    if options.install:
        install()
        return
    if not (HOME / "bin" / "schemathesis").exists():
        sys.exit(f"schemathesis is not installed. Run python {sys.argv[0]} --install.")
    examples = 15 if options.quick else options.examples
    with tempfile.TemporaryDirectory() as home:
        write_small_bundle(Path(home) / "bundle")
        (Path(home) / "schemathesis.toml").write_text(SETTINGS)
        command = [sys.executable, "-c", SERVE, home + "/bundle"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            url = server.stdout.readline().strip()
            before = psutil.Process(server.pid).memory_info().rss >> 20
            command_line = [HOME / "bin" / "schemathesis", "--config-file", home + "/schemathesis.toml", "run"]
            command_line += [
                url + "/openapi.json",
                "--url",
                url,
                "--checks",
                ",".join(CHECKS),
                "--seed",
                str(options.seed),
            ]
            command_line += ["--max-examples", str(examples), "--no-color", "--mode", "all", "--workers", "1"]
            done = subprocess.run(command_line, cwd=home, capture_output=True, text=True, check=False)
            print(done.stdout)
            after = psutil.Process(server.pid).memory_info().rss >> 20
            lives = urllib.request.urlopen(url + "/v2/health/ready", timeout=10).status == 200
        finally:
            server.terminate()
            code = server.wait(30)
    numbers = {
        word: int(n) for n, word in re.findall(r"(\d+) (generated|passed|found|failures|unique failures)", done.stdout)
    }
    row = {"examples": examples, **numbers, "verdict": done.returncode, "MiB before": before, "MiB after": after}
    note = f"checks: {', '.join(CHECKS)}; the server {'answers' if lives else 'does not answer'}, exit code {code}"
    record("serving-schema" + "-quick" * options.quick, {"seed": options.seed}, [row], note)
    sys.exit(done.returncode or code)


if __name__ == "__main__":
    main()
