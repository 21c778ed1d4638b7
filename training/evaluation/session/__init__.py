"""What ``training.evaluate`` does: ask a model, store its answers, have them judged, score them, tell what came out."""
