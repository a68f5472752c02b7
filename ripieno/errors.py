"""Errors for users: each message states the value, the expectation and the remedy, in one line."""

from __future__ import annotations

import errno
import importlib
import os
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ripieno.deprecation import find_renamed

_MODULES = {
    "train": "torch kornia safetensors optuna onnxscript onnx sklearn",
    "serve": "onnxruntime starlette uvicorn orjson httpx prometheus_client python_multipart grpc grpc_health "
    "grpc_reflection",
    "openvino": "openvino",
    "nncf": "nncf",
    "cluster": "ray",
    "smac": "smac",
    "rl": "gymnasium stable_baselines3 gym_electric_motor",
    "report": "matplotlib jinja2",
    "parquet": "pyarrow",
    "yaml": "yaml",
    "trees": "lightgbm skl2onnx onnxmltools",
    "timm": "timm torchvision",
    "segmentation": "segmentation_models_pytorch",
    "dashboard": "optuna_dashboard",
    "tensorboard": "tensorboardX",
    "mlflow": "mlflow",
    "otel": "opentelemetry",
}
EXTRAS = {module: extra for extra, modules in _MODULES.items() for module in modules.split()}
"""The extra that installs each module."""


class RipienoError(Exception):
    """An error that the user can fix. The command line prints the message without a traceback and exits with 2."""


class DataError(RipienoError):
    """Images, labels or splits that cannot be used."""


class ModelError(RipienoError):
    """A family or configuration that no network can be built from."""


class LibraryError(RipienoError):
    """A library, member, profile, ensemble or bundle on disk that is absent, broken or of a newer version."""


class SearchError(RipienoError):
    """A search that cannot start or continue."""


class SelectionError(RipienoError):
    """Arrays, budgets or methods that selection cannot use."""


class AllocationError(RipienoError):
    """An ensemble that does not fit the devices, or devices that do not exist."""


class EngineError(RipienoError):
    """A request or a bundle that the engine cannot process."""


class EngineBusyError(EngineError):
    """The engine has no capacity for a request within the request's timeout."""


class EngineTimeoutError(EngineError):
    """A request's deadline passed before its result was complete."""


class BrokenFileWarning(UserWarning):
    """Files of a run that cannot be read and were skipped. The command line prints it as a note."""


class MissingExtraError(RipienoError):
    """An optional part of ripieno that is not installed."""

    def __init__(self, module: str) -> None:
        extra = EXTRAS.get(module, "all")
        super().__init__(f"{module} is not installed; install it with: pip install 'ripieno[{extra}]'")


def require(module: str) -> ModuleType:
    """Import `module` of an extra. Raises `MissingExtraError` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == module.partition(".")[0]:
            raise MissingExtraError(module.partition(".")[0]) from error
        raise


def error_summary(error: BaseException, *, named: bool = False, line: int = 0) -> str:
    """Return the first line of an error's message, or its type's name when the message is empty, as of MemoryError.

    With `named`, the type's name precedes it. `line` -1 is the last line, where some libraries put the cause.
    """
    name, lines = type(error).__name__, str(error).strip().splitlines()
    if not lines:
        return name
    return f"{name}: {lines[line].strip()}" if named else lines[line].strip()


_ACTIONS = {
    errno.ENOSPC: "free the disk or choose another folder",
    errno.EDQUOT: "free some of your quota or choose another folder",
    errno.EFBIG: "raise the file size limit or choose another folder",
    errno.EROFS: "mount it for writing or choose another folder",
    errno.EACCES: "change its permissions or choose another folder",
    errno.EPERM: "change its permissions or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "check the path",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "free memory",
    errno.EIO: "check the disk and the kernel log",
    errno.ESTALE: "mount it again",
}


def system_error(error: OSError, verb: str = "use", path: object = None) -> str:
    """Return a line on a failed system call: action `verb`, paths (by default those of `error`), reason and remedy."""
    names = [path] if path is not None else [n for n in (error.filename, error.filename2) if n is not None]
    named = " and ".join(os.fsdecode(n) if isinstance(n, bytes) else str(n) for n in names)
    action = f"cannot {verb} {named}" if named else "a system call failed"
    remedy = _ACTIONS.get(error.errno or 0, "choose another folder")
    return f"{action}: {error.strerror or error_summary(error)}; {remedy}"


if not TYPE_CHECKING:  # a type checker would take every name for an attribute of this module

    def __getattr__(name: str) -> Any:
        return find_renamed(globals(), {"first_line": "error_summary", "need": "require"}, name)
