"""The record of a job in JSON types, and the HTML report."""
