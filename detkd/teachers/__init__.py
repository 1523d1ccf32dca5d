"""What a student may learn from: a frozen model that runs beside it, several of them."""
