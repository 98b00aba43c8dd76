"""Model files and graphs: loading, saving, shapes, costs, and the prunable weights of a model."""
