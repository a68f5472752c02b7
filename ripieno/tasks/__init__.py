"""Tasks: targets, predictions, metrics and combiners.

Depends on NumPy, and `drift` on SciPy; every other package may import it.
"""
