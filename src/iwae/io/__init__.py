"""Files, JSON and text that others may have written."""
