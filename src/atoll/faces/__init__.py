"""Kits that the rooms' faces share."""
