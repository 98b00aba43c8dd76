"""Files and graphs: loading, saving, and the prunable weights of a model."""
