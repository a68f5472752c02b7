"""Labels, metrics and combiners of predictions. Depends on NumPy only; every other package may import it."""
