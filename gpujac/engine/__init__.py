"""What is done to a linear program so that a device runs it in few, wide launches."""
