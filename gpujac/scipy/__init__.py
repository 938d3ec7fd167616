"""SciPy with derivatives, one module per module of SciPy that has rules: `special`."""
