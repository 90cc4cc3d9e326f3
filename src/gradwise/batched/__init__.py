"""Many trainings of one architecture at once: a row each in stacked tensors, with settings of its own."""

from gradwise.batched.stack import BatchError
from gradwise.batched.training import Trained, Training

__all__ = ["BatchError", "Trained", "Training"]
