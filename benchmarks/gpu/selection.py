"""Step selection: SMOBF with the matrix of true-class probabilities on the device against the CPU's, in turns.

The larger matrix is a part of the paper's segmentation (section 2.4: 500 images of 256 x 256 pixels), in float16.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from kit import Report, median_range, read_options, synchronize

from ripieno.selection import select_members

SETTINGS = ((40, 2_000), (200, 2_000), (1_000, 2_000), (40, 500_000), (40, 8_000_000))
"""Members and samples."""


def main() -> None:
    """Select on both; the members must be the same."""
    options = read_options()
    report = Report(options)
    for members, samples in SETTINGS[:1] if options.dry else SETTINGS:
        if options.left() < 30:
            report.note("The time ended before the largest matrix.")
            return
        with report.case(members=members, samples=samples):
            truth = true_class_probabilities(members, samples, options.device)
            costs = np.random.default_rng(0).uniform(0.5, 2.0, members)
            taken: dict[str, list[float]] = {}
            chosen = {}
            for _ in range(2 if samples > 1e6 else 3):
                for device in dict.fromkeys(("cpu", options.device)):
                    began = time.perf_counter()
                    found = select_members(truth, None, costs, 12.0, prune=1.0, device=device)
                    synchronize(options.device)
                    taken.setdefault(device, []).append(time.perf_counter() - began)
                    chosen[device] = found
            for device, values in taken.items():
                same = chosen[device].members == chosen["cpu"].members
                loss = chosen[device].loss - chosen["cpu"].loss
                row = {} if same or abs(loss) < 1e-6 else {"error": "another ensemble than the CPU's"}
                ratio = float(np.median(taken["cpu"]) / np.median(values))
                seconds = {f"seconds_{k}": v for k, v in median_range(values).items()}
                report.add(
                    members=members,
                    samples=samples,
                    device=device,
                    **seconds,
                    x_CPU=ratio,
                    chosen=len(chosen[device].members),
                    same_members=same,
                    loss_difference=loss,
                    **row,
                )


def true_class_probabilities(members: int, samples: int, device: str) -> list[np.ndarray]:
    """Return a row for each member, float16 where there are many samples; members differ in accuracy."""
    generator = torch.Generator(device).manual_seed(0)
    kind = torch.float16 if samples > 1e6 else torch.float32
    easy = torch.rand(samples, generator=generator, device=device)
    rows = []
    for member in range(members):
        noise = torch.rand(samples, generator=generator, device=device)
        row = (0.35 + 0.2 * member / members) * easy + 0.45 * noise
        rows.append(row.clamp(1e-4, 1).to(kind).cpu().numpy())
    return rows


if __name__ == "__main__":
    main()
