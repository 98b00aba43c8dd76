"""What a model's layers read on real inputs: statistics for the criteria and for cheap repairs."""
