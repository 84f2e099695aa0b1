"""What a benchmark leaves: rows, estimates, comparisons, and what their names mean."""
