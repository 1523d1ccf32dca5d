"""Construction of models from their configuration, by family."""
