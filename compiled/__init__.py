"""Machine code of medpair's own (extra `numba`): how it is made, kept between processes, and loaded once it is worth it."""
