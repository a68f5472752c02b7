"""What is predicted and how it is judged: labels, metrics, combiners. NumPy only, known to all folders above."""
