"""Independent parts of jobs, performed in turn or at once, here or on a cluster."""
