"""Probes of a trained model: log-probs of pairs beside their own image, another one, none, and a corrupted one."""
