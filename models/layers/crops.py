"""`eight_bit` under the name that scripts outside this repository import it by; it lies in models/transforms/crops.py."""

from models.transforms.crops import eight_bit

__all__ = ["eight_bit"]
