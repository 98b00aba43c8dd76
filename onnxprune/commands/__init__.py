"""A Python function for each command of the command line."""
