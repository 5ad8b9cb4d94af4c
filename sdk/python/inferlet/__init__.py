"""The SDK of inferlets."""
