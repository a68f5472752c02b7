"""`python -m ripieno.server.proto`: compile `oip.proto` to `oip.desc`, at development time."""

from __future__ import annotations

import sys
from pathlib import Path

from ripieno.errors import require

HERE = Path(__file__).parent


def compile_to(target: Path) -> None:
    """Write the compiled form of `oip.proto` to `target`."""
    arguments = ["protoc", f"--proto_path={HERE}", f"--descriptor_set_out={target}", "oip.proto"]
    if require("grpc_tools.protoc").main(arguments) != 0:
        sys.exit("Cannot compile oip.proto.")


if __name__ == "__main__":
    compile_to(HERE / "oip.desc")
