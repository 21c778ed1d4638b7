"""Small commands of ``vlm-preference`` that are no step of a run."""
