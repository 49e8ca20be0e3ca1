"""What a score owes to the hospital: how well the site is read from the features, and what is left of the score at a site never seen."""
