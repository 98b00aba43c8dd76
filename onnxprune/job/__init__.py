"""The one job: prune, fine-tune, evaluate and write a model."""
