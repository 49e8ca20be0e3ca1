"""Every remedy that a message names is typed as printed, and has to work."""
