"""Commands for people: `atoll login`, `logout`, `token` and `user`."""
