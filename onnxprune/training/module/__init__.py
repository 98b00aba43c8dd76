"""The torch module of a graph: operators, parameters under the names of initializers, norms put back, its ends."""
