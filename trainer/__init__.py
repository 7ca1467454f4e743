"""The trainer: collect -> fit -> evaluate -> export -> publish -> promote."""
