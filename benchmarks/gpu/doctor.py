"""Step doctor: the machine, its packages, and the device's own rates of convolutions, products and copies."""

from __future__ import annotations

import importlib.metadata

import torch
from kit import Options, Report, read_options
from rates import convolution_rate, copy_rate, product_rate, set_precision

PACKAGES = (
    "numpy",
    "torch",
    "torchvision",
    "timm",
    "triton",
    "onnxruntime",
    "onnx",
    "scikit-learn",
    "kornia",
    "optuna",
)
PACKAGES += ("msgspec", "starlette", "uvicorn", "ray", "openvino", "nvidia-ml-py")


def main() -> None:
    """Describe first, then measure."""
    options = read_options()
    report = Report(options)
    for package in PACKAGES:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = "absent"
        report.add(what=package, value=version)
    if not options.dry:
        with report.case(what="GPU"):
            describe_gpu(report)
    with report.case(what="ripieno doctor"):
        import ripieno.pipeline

        found = ripieno.pipeline.doctor()
        for device in found.devices:
            report.add(what=f"device {device.name}", value=f"{device.kind}, {device.memory / 2**30:.1f} GiB free")
        report.add(what="missing extras", value=", ".join(found.missing) or "none")
    measure_rates(options, report)


def describe_gpu(report: Report) -> None:
    """Add what PyTorch says of the GPU."""
    seen = torch.cuda.get_device_properties(0)
    report.add(what="CUDA of PyTorch", value=torch.version.cuda)
    report.add(what="cuDNN", value=torch.backends.cudnn.version())
    report.add(what="GPU", value=f"{seen.name}, {seen.total_memory / 2**30:.1f} GiB, {seen.multi_processor_count} SMs")
    report.add(what="compute capability", value=f"{seen.major}.{seen.minor}")
    report.add(what="bfloat16", value=torch.cuda.is_bf16_supported(including_emulation=False))
    report.add(what="driver's providers of ONNX Runtime", value=onnx_providers())


def onnx_providers() -> str:
    """Return the providers of the installed ONNX Runtime."""
    try:
        import onnxruntime
    except ImportError:
        return "absent"
    return ", ".join(onnxruntime.get_available_providers())


def measure_rates(options: Options, report: Report) -> None:
    """Add the rates of the device in each precision."""
    seconds = 0.02 if options.dry else 1.0
    for precision in ("fp32", "tf32", "bf16", "fp16"):
        for name, rate in (("convolution", convolution_rate), ("matrix product", product_rate)):
            with report.case(what=f"{name}, {precision}"):
                value = rate(options.device, precision, seconds, options.dry) / 1e12
                report.add(what=f"{name}, {precision}", value=value, unit="10^12 operations/s")
    set_precision("tf32")
    with report.case(what="copies"):
        for direction, speed in copy_rate(options.device, 1 << (20 if options.dry else 30)).items():
            report.add(what=f"copy {direction}", value=speed / 1e9, unit="GB/s")


if __name__ == "__main__":
    main()
