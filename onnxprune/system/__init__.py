"""The process of a job: its memory, its rank, and the installed packages."""
