"""Students in formats that run without detkd, checked to say what the student says."""
