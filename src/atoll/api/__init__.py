"""Assembles the rooms' HTTP routes into the application, and runs it with the control plane beside it."""
