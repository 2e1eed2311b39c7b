"""An envbridge source over an inventory of machines."""
