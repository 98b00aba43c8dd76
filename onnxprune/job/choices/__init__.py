"""What a job chooses where the user leaves it open: by rule, by rehearsal, by size."""
