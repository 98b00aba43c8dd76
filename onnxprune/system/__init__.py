"""The process of a job: its memory, its cores, its rank, and the installed packages."""
