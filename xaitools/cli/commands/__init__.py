"""One file is one command; it defines ``command``."""
