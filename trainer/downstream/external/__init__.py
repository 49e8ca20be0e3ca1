"""A trained run on data of another origin: predictions for cases without answers, and results on another hospital's labelled set."""
