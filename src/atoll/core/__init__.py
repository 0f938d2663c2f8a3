"""The vocabulary of Atoll, pure: every other part imports it, it imports none of them and does no I/O."""
