"""Sizes of screens, in pixels."""

DESKTOP, PHONE = (1280, 900), (390, 844)
