"""Views or modalities compared with each other."""
