"""Array libraries behind one protocol: which one owns a value, and what the standard lacks."""
