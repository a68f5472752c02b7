"""Training: a job becomes a member or a failure."""

from ripieno.train.loop import Task, train_job

__all__ = ["Task", "train_job"]
