"""The networks and data for examples and tests, and the scripts that create them; not installed."""
