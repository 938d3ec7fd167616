"""What can be said: NumPy's functions over the ops, and the traced array that users meet."""
