"""What the Snakefile needs: its settings, and their defaults and schema beside this file."""
