"""Training: a job becomes a member or a failure."""

from ripieno.errors import need

need("torch")

from ripieno.train.loop import Task, train_job  # noqa: E402

__all__ = ["Task", "train_job"]
