"""The report: stored results as one page and one Markdown file."""
