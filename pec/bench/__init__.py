"""Measurements on synthetic data: two node processes, gRPC with mutual TLS, loopback."""
