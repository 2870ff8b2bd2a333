"""Pictures and pages for people: sheets of samples, and the self-contained report of a run."""
