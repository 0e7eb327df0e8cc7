"""The port as Channels' own tutorial would have it, for comparison."""
