"""The metrics of `ripieno.tasks`, under the name they had first."""

from ripieno.tasks.metrics import FLOOR, accuracy, cross_entropy, losses, macro_f1, true_class

__all__ = ["FLOOR", "accuracy", "cross_entropy", "losses", "macro_f1", "true_class"]
