"""Preferences and contact decisions: channel x topic x frequency cap x quiet hours."""
