"""What a run would do, and how long that takes."""
