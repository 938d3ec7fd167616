"""The flat linear program that linearize writes down, and what can be read off it."""
