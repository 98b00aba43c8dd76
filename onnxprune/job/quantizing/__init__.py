"""The int8 stage of a job."""
