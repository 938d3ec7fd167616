"""Every operation of the library, one file per family; rules live with their op."""
