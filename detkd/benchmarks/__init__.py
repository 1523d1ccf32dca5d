"""What the fused ops gain over the same formulas in PyTorch."""
