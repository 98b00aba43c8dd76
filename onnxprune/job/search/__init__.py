"""The search for the highest rate within a drop."""
