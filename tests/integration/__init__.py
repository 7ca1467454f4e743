"""Tests on the real Kafka, Redis and MLflow."""
