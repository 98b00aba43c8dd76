"""A sweep: every combination of a grid of settings, each with several seeds."""
