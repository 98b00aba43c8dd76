"""Which weights go: criteria, allocation of the rate to layers, masks, and the schedule."""
