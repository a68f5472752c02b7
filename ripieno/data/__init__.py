"""Data sets: read from what people have, split, and kept as one memory-mapped folder."""

from ripieno.data.dataset import open_dataset, write_dataset
from ripieno.data.load import load_dataset

__all__ = ["load_dataset", "open_dataset", "write_dataset"]
