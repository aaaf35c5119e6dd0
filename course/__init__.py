"""What the chapters share: page helpers, editions of the notebooks, and the `course` command."""
