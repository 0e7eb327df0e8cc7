"""The code blocks of the documentation. A test compares them, and others run them."""
