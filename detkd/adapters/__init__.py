"""What each family of models exposes so that it can be distilled: one adapter for all its models."""
