"""Networks, their catalogue and their weights."""
