"""What goes on: consumers of alerts and scores."""
