"""Step measure: seconds and memory of networks alone, by backend, precision and batch size (`ripieno measure`)."""

from __future__ import annotations

from kit import Report, local_device, read_options, weights_path, write_networks

from ripieno.profiles import profile

BACKENDS = (
    "torch",
    "torch-graphs",
    "torch:bf16",
    "torch-graphs:bf16",
    "torch:fp16",
    "torch-compile",
    "torch-compile:bf16",
)
SIZES = (1, 8, 32, 128, 512, 2048)
CHOSEN = (0, 3, 6, 11)
"""Indices of the measured networks."""


def main() -> None:
    """Profile each network with each backend."""
    options = read_options()
    report = Report(options)
    members = write_networks(options.scratch / "measure", options.shapes(12))
    device = local_device(options)
    for backend in ("torch",) if options.dry else BACKENDS:
        for index in CHOSEN[:1] if options.dry else CHOSEN:
            member = members[index]
            name = f"width {member.configuration['width']}, {member.configuration['blocks_1']} blocks"
            if options.left() < 20:
                report.note("The time ended before all backends were measured.")
                return
            with report.case(network=name, backend=backend):
                found = profile(
                    weights_path(options.scratch / "measure", member),
                    member,
                    device,
                    backend,
                    batch_sizes=SIZES[:2] if options.dry else SIZES,
                    max_seconds=0.5 if options.dry else 3.0,
                )
                for point in found.points:
                    report.add(
                        network=name,
                        backend=backend,
                        batch=point.batch_size,
                        ms=point.seconds * 1e3,
                        images_per_s=point.batch_size / point.seconds,
                        spread=point.spread,
                        MiB=point.bytes / 2**20,
                        base_MiB=found.base / 2**20,
                    )
    report.note("MiB: growth of the device's memory by the member and its batches; base: the process's own.")


if __name__ == "__main__":
    main()
