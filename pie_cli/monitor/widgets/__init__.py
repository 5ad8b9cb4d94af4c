"""Textual widgets that draw lines; what they say is made by the panels."""
