"""Getting signals out of live training: hooks on optimizers, backward passes, loss functions and modules."""
