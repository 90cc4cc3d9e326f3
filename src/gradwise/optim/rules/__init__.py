"""Update rules, from the simplest on: each a function of scalars, compiled by `gradwise.optim.kernels`."""
