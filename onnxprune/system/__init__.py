"""The process that a job runs in: its memory and its rank."""
