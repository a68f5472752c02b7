"""Errors for missing extras name the install command; importing the server is cheap."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.server.stand_in import ROOT

WITHOUT = """
import sys
sys.modules[{module!r}] = None
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
del sys.modules[{module!r}]
sys.meta_path.insert(0, Hide())
from ripieno.errors import MissingExtraError
try:
    {code}
except MissingExtraError as error:
    print(error)
"""


def said(module: str, code: str) -> str:
    command = [sys.executable, "-c", WITHOUT.format(module=module, code=code)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("module", ["starlette", "uvicorn", "orjson", "prometheus_client"])
def test_a_missing_part_of_the_server_names_its_extra(module: str) -> None:
    line = said(module, "from ripieno.server import serve")
    assert line == f"{module} is not installed; install it with: pip install 'ripieno[serve]'"


def test_a_missing_part_of_the_client_names_its_extra() -> None:
    assert "pip install 'ripieno[serve]'" in said("httpx", "from ripieno.server import infer")


def test_importing_the_server_imports_none_of_its_libraries() -> None:
    code = "import ripieno.server, sys; print(sorted({'starlette', 'uvicorn', 'httpx', 'grpc'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
