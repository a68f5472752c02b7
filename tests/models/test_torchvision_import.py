from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

if importlib.util.find_spec("timm") is None:
    pytest.skip("needs the extra timm", allow_module_level=True)


def run(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` in a new interpreter that looks for modules in `folders` first."""
    head = "".join(f"sys.path.insert(0, {str(folder)!r})\n" for folder in folders)
    command = [sys.executable, "-W", "error", "-c", f"import sys\n{head}{textwrap.dedent(code)}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_timm_can_be_imported() -> None:
    found = run(
        """
        from ripieno.models.torchvision_import import import_timm
        import torch
        timm = import_timm()
        assert timm is import_timm()
        import torchvision
        assert torch.ops.torchvision.nms is not None
        """
    )
    assert (found.returncode, found.stderr) == (0, "")


MADE = """
import torch
torch.library.register_fake("torchvision::nms")(lambda *given: None)
torch.library.register_fake("torchvision::qnms")(lambda *given: None)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with a torchvision that describes operators, as the real one does; it has none itself."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(MADE)
    return tmp_path


def test_without_the_schemas_the_import_fails(package: Path) -> None:
    assert "operator torchvision::nms does not exist" in run("import torchvision", package).stderr


@pytest.mark.parametrize("operators", [None, "_C.so", "_C.cpython-311-x86_64-linux-gnu.so"])
def test_schemas_are_declared_where_operators_are_absent_or_cannot_be_loaded(
    package: Path, operators: str | None
) -> None:
    if operators:
        (package / "torchvision" / operators).write_bytes(b"not a shared library")
    code = """
        from ripieno.models.torchvision_import import declare_missing_operators
        declare_missing_operators()
        declare_missing_operators()
        import torchvision
        """
    found = run(code, package)
    assert (found.returncode, found.stderr) == (0, "")


def test_nothing_is_declared_where_operators_can_be_loaded(package: Path) -> None:
    code = f"""
        from pathlib import Path
        import torch
        from ripieno.models.torchvision_import import declare_missing_operators
        library = Path({str(package)!r}) / "torchvision" / "_C.so"
        library.symlink_to(next(Path(torch.__file__).parent.joinpath("lib").glob("libc10.so*")))
        declare_missing_operators()
        assert not hasattr(torch.ops.torchvision, "nms")
        """
    found = run(code, package)
    assert (found.returncode, found.stderr) == (0, "")


def test_nothing_is_declared_where_torchvision_is_absent_or_imported_already(tmp_path: Path) -> None:
    code = """
        import types
        import torch
        from ripieno.models.torchvision_import import declare_missing_operators
        {}
        declare_missing_operators()
        assert not hasattr(torch.ops.torchvision, "nms")
        """
    absent = "import importlib.util; importlib.util.find_spec = lambda name: None"
    imported = "sys.modules['torchvision'] = types.ModuleType('torchvision')"
    assert [run(code.format(first)).stderr for first in (absent, imported)] == ["", ""]
