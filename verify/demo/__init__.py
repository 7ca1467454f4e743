"""The demo: the whole system on real servers, told as a story with a live view and a summary."""
