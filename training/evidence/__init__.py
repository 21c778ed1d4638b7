"""The tables and curves of the evidence page, each from one command."""
