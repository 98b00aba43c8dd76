"""Which weights are removed: criteria, allocation of the rate to layers, masks, and the schedule."""
