"""What runs inside the jail: the standard library and the installed packages only, nothing of the course."""
