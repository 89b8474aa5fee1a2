"""Channels: how messages come in from other services, and how replies go out to them."""
