"""The shapes of values, known and symbolic: inferred, fixed, freed and folded."""
