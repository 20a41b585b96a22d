"""Data that stays where it is: in the host's memory, or packed into files, and is fetched as it is needed."""
