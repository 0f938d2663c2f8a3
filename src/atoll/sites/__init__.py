"""Sites: where jobs run."""
