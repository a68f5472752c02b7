"""Tasks: targets, predictions, metrics and combiners. Depends on NumPy only; every other package may import it."""
