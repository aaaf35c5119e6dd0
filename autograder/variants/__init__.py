"""One module a chapter: correct solutions written independently of the reference, which every check must accept."""
