"""Training: a job becomes a member or a failure."""

from ripieno.errors import need

need("torch")

from ripieno.train.loop import train_job  # noqa: E402
from ripieno.train.task import Task  # noqa: E402

__all__ = ["Task", "train_job"]
