"""What is removed at each step of a job: weights, blocks or channels, with calibration inputs or without."""
