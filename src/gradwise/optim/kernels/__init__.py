"""How a rule runs: eagerly on tensors (`reference`), compiled for the CPU (`cpu`) and for GPUs (`gpu`)."""
