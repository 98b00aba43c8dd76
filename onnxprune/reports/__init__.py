"""What a job did, as JSON types and as tables for the terminal."""
