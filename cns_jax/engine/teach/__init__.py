"""Lessons: from settings to steps to what is kept."""
