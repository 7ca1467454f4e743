"""The embedded stack: a real Kafka, Redis-compatible server and MLflow as child processes."""
