"""A broker's answering side."""
