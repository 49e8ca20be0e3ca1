"""Results of fine-tuning, side by side: read, grouped, tested against each other, drawn and written (launch/compare.py)."""
