"""Training: a job becomes a member or a failure."""

from ripieno.errors import require

require("torch")

from ripieno.train.job import train_job  # noqa: E402
from ripieno.train.training_config import TrainingConfig  # noqa: E402

__all__ = ["TrainingConfig", "train_job"]
