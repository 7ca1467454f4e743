"""Tests of docker-compose.yml."""
