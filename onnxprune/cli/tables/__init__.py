"""What commands print: tables for the terminal."""
