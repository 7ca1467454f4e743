"""The replay producer: source -> pace -> send."""
