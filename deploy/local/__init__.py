"""A whole Headrace on one machine: Valkey, Ray, an engine and the gateway, as processes of this user."""
