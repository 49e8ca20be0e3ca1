"""Networks that draw masks, from labels alone."""
