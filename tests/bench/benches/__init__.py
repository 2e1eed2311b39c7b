"""One module per bench; see the README of the folder above."""
