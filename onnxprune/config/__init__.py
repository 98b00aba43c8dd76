"""The settings of a job: declared once, checked when they are made, kept as recipes."""
