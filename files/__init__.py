"""What is read and written: text, and where it comes from."""
